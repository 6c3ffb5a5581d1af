// Real chat templates rendered as the transformers library renders them: testdata/golden.json, made by
// dev/golden/chat_templates.py.
#include <gtest/gtest.h>

#include <filesystem>
#include <iomanip>
#include <sstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "jinja/template.h"

namespace nibble::jinja {
namespace {

const std::string kFolder = std::string(NIBBLE_SOURCE_DIR) + "/src/jinja/testdata/";

std::tm parse_time(const std::string& text) {
  std::tm time{};
  std::istringstream in(text);
  in >> std::get_time(&time, "%Y-%m-%dT%H:%M:%S");
  std::mktime(&time);  // the day of the week
  return time;
}

struct Outcome {
  std::string text;
  std::string error;
};

Outcome outcome(const std::string& source, const json::Value& variables, const std::tm& now) {
  try {
    return {Template(source).render(variables, now), {}};
  } catch (const Error& error) {
    return {{}, error.message()};
  }
}

TEST(Golden, RealTemplatesRenderAsInTransformers) {
  const json::Value golden = json::parse_file(kFolder + "golden.json");
  const std::tm now = parse_time(golden.at("now").as_string());
  const json::Array& cases = golden.at("cases").as_array();
  int n_equal = 0;
  std::size_t n_templates = 0;
  for (const auto& [file, results] : golden.at("templates").as_object()) {
    const std::string source = read_file(kFolder + "templates/" + file);
    std::string before;
    ASSERT_EQ(results.as_array().size(), cases.size());
    ++n_templates;
    for (std::size_t i = 0; i < cases.size(); ++i) {
      const json::Value& result = results.as_array()[i];
      Outcome expected;
      if (const json::Value* error = result.find("error")) {
        expected.error = error->as_string();
      } else {
        const json::Array& parts = result.as_array();
        const auto end = static_cast<std::size_t>(parts[1].as_int());
        expected.text = before.substr(0, static_cast<std::size_t>(parts[0].as_int())) + parts[2].as_string() +
                        before.substr(before.size() - end);
        before = expected.text;
      }
      const Outcome got = outcome(source, cases[i].at("variables"), now);
      const std::string where = file + ", " + cases[i].at("name").as_string();
      EXPECT_EQ(got.text, expected.text) << where << " " << got.error;
      EXPECT_EQ(got.error, expected.error) << where;
      n_equal += got.text == expected.text && got.error == expected.error;
    }
  }
  EXPECT_GE(n_templates, 80u);
  EXPECT_EQ(n_equal, static_cast<int>(n_templates * cases.size()));
}

// testdata/snippets.json, made by dev/golden/jinja_snippets.py: one thing each. Mistakes in the source are told in
// words of our own.
TEST(Golden, SnippetsRenderAsInJinja) {
  const json::Value golden = json::parse_file(kFolder + "snippets.json");
  for (const json::Value& snippet : golden.at("snippets").as_array()) {
    const json::Array& parts = snippet.as_array();
    const Outcome got = outcome(parts[0].as_string(), golden.at("variables"), parse_time("2026-03-07T09:05:03"));
    if (parts.size() == 2 && parts[1].is_null()) {
      EXPECT_NE(got.error, "") << parts[0].as_string();
      continue;
    }
    const Outcome expected = parts.size() == 2 ? Outcome{parts[1].as_string(), {}} : Outcome{{}, parts[2].as_string()};
    EXPECT_EQ(got.text, expected.text) << parts[0].as_string() << "\n" << got.error;
    EXPECT_EQ(got.error, expected.error) << parts[0].as_string();
  }
}

}  // namespace
}  // namespace nibble::jinja
