#include "nibble/sweep.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "json/json.h"
#include "pipeline/plot.h"
#include "testing/program.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

const std::string kModel = std::string(NIBBLE_SOURCE_DIR) + "/models/books-7m";

SweepRequest request() {
  SweepRequest r;
  r.model = kModel;
  r.types = {"q8_0", "q4_0"};
  r.methods = {"rtn", "search"};
  r.texts = {std::string(NIBBLE_SOURCE_DIR) + "/text/books-eval.txt"};
  r.context = 64;
  r.chunks = 4;
  return r;
}

TEST(Sweep, EveryCombinationIsMeasuredAndDrawn) {
  const testing::TemporaryFolder folder;
  SweepRequest r = request();
  r.types.push_back("q2_k");
  r.methods.push_back("gptq");  // without a text to learn from
  r.svg = folder / "plot.svg";
  r.folder = folder / "models";
  const Report report = sweep({}, r);
  const json::Value value = json::parse(report.json);
  const auto& rows = value.at("rows").as_array();
  ASSERT_EQ(rows.size(), 9u);
  std::map<std::string, double> kld;
  for (const json::Value& row : rows) {
    if (row.at("method").as_string() == "gptq") {
      EXPECT_THAT(row.at("failure").as_string(), HasSubstr("--calib"));
      continue;
    }
    const json::Value& figures = row.at("texts").as_array().at(0);
    kld[row.at("type").as_string() + "-" + row.at("method").as_string()] = figures.at("kld_mean_exact").as_number();
    EXPECT_GT(row.at("bits_per_weight").as_number(), 2);
  }
  EXPECT_LT(kld.at("q8_0-rtn"), kld.at("q4_0-rtn"));
  EXPECT_LT(kld.at("q4_0-search"), kld.at("q4_0-rtn"));
  EXPECT_LT(kld.at("q4_0-search"), kld.at("q2_k-search"));
  EXPECT_TRUE(std::filesystem::exists(folder / "models/q4_0-search.gguf"));
  const std::string svg = read_file(r.svg);
  EXPECT_THAT(svg, HasSubstr("<svg "));
  EXPECT_THAT(svg, HasSubstr("search"));
  EXPECT_THAT(report.text, HasSubstr("| q4_0 | search | none |"));
}

TEST(Sweep, NothingToDoIsTold) {
  SweepRequest r = request();
  r.types = {"q4_99"};
  EXPECT_THROW(sweep({}, r), Error);
  r = request();
  r.texts.clear();
  EXPECT_THROW(sweep({}, r), Error);
}

TEST(Plot, PointsLieWhereTheyShould) {
  const pipeline::Plot plot = {"a < b", "x", "y", {{"one", {{2, 0.1, "p"}, {4, 0.001, "q"}, {3, -1, "left out"}}}}};
  const std::string svg = pipeline::to_svg(plot);
  EXPECT_THAT(svg, HasSubstr("a &lt; b"));
  EXPECT_THAT(svg, HasSubstr("<polyline points=\"80.0,50.0 690.0,500.0\""));
  EXPECT_THAT(svg, ::testing::Not(HasSubstr("left out")));
}

TEST(Plot, PanelsLieBelowEachOther) {
  pipeline::Plot plot = {"first", "block", "y", {{"before", {{0, 1}, {95, 10}}, 3, true}, {"after", {{0, 2}}, 3}}};
  std::vector<pipeline::Plot> plots = {plot, plot};
  plots[1].title = "second";
  const std::string svg = pipeline::to_svg(plots);
  EXPECT_THAT(svg, HasSubstr("height=\"1120\""));
  EXPECT_THAT(svg, HasSubstr("<g transform=\"translate(0 560)\">"));
  EXPECT_LT(svg.find("first"), svg.find("second"));
  EXPECT_THAT(svg, HasSubstr("stroke-dasharray"));
  EXPECT_THAT(svg, ::testing::Not(HasSubstr("#1f77b4")));  // both have the fourth color
  EXPECT_THAT(svg, HasSubstr(">90</text>"));               // a tick every 5 blocks
  EXPECT_THAT(svg, ::testing::Not(HasSubstr(">91</text>")));
}

}  // namespace
}  // namespace nibble
