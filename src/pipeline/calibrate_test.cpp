// Statistics from a text to a quantized model, from end to end.
#include "nibble/calibrate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/atomic_file.h"
#include "base/error.h"
#include "container/checkpoint.h"
#include "json/json.h"
#include "nibble/quantize.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using testing::TemporaryFolder;

const std::string kModel = std::string(NIBBLE_SOURCE_DIR) + "/models/books-7m";
const std::string kText = std::string(NIBBLE_SOURCE_DIR) + "/text/books-calib.txt";

class Calibrate : public ::testing::Test {
 protected:
  CalibrateRequest request(const std::string& name, const std::string& model = kModel) const {
    CalibrateRequest request;
    request.model = model;
    request.text = kText;
    request.out = folder_ / name;
    request.tokens = 1024;
    request.context = 64;
    return request;
  }
  std::string made(const std::string& name, const std::string& model = kModel) const {
    calibrate({}, request(name, model));
    return folder_ / name;
  }
  QuantizeRequest quantize(const std::string& name, const std::string& statistics) const {
    QuantizeRequest request;
    request.input = kModel;
    request.output = folder_ / name;
    request.type = "q4_0";
    request.effort = 1;
    request.calib_stats = statistics;
    return request;
  }
  std::string tiny(const std::string& type) const {
    testing::write_tiny_model(folder_ / type, testing::tiny_config(type));
    return folder_ / type;
  }
  template <typename Call>
  std::string refusal(Call&& call) const {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }
  std::string quantize_refusal(const QuantizeRequest& r) const {
    return refusal([&] { quantize_model(r); });
  }

  TemporaryFolder folder_;
};
using CalibrateSlow = Calibrate;

std::vector<std::byte> data_of(const container::CheckpointReader& reader, const std::string& name) {
  const auto data = reader.at(name).view.data();
  return {data.begin(), data.end()};
}

// What enters the first block is the same whether anything is quantized or not.
TEST_F(Calibrate, TheFirstLinearsAreThoseOfTheText) {
  const std::string model = tiny("llama"), statistics = made("statistics", model);
  const auto request_of = [&](const std::string& name, const std::string& from) {
    QuantizeRequest request = quantize(name, from);
    request.input = model;
    return request;
  };
  const QuantizeReport report = quantize_model(request_of("saved.gguf", statistics), {.threads = 1});
  EXPECT_THAT(report.notes, ::testing::Contains(HasSubstr("statistics of 1024 tokens (books-calib.txt)")));
  EXPECT_THAT(report.notes, ::testing::Contains(HasSubstr("nothing is corrected for layers quantized before")));
  QuantizeRequest text = request_of("text.gguf", "");
  text.calib = kText;
  text.calib_tokens = 1024;
  text.calib_context = 64;
  text.correction = 0;
  quantize_model(text);
  quantize_model(request_of("again.gguf", statistics), {.threads = 3});
  const auto saved = container::open(folder_ / "saved.gguf"), from_text = container::open(folder_ / "text.gguf"),
             again = container::open(folder_ / "again.gguf");
  for (const char* name : {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"})
    EXPECT_EQ(data_of(*saved, name), data_of(*from_text, name)) << name;
  EXPECT_NE(data_of(*saved, "blk.1.ffn_up.weight"), data_of(*from_text, "blk.1.ffn_up.weight"));
  for (const container::TensorEntry& entry : saved->tensors())
    EXPECT_EQ(data_of(*saved, entry.name), data_of(*again, entry.name)) << entry.name;
  for (const TensorReport& tensor : report.tensors) {
    if (tensor.name.starts_with("blk.") && tensor.shape.size() == 2) {
      EXPECT_EQ(tensor.method, "gptq") << tensor.name;
      EXPECT_LT(tensor.relative_mse, 0.1) << tensor.name;
    }
  }
}

TEST_F(Calibrate, EveryKindOfBlock) {
  for (const std::string type : {"qwen2_moe", "deepseek_v3", "phi", "gpt2", "gpt_oss"}) {
    SCOPED_TRACE(type);
    const std::string model = tiny(type);
    QuantizeRequest r = quantize(type + ".gguf", made("statistics-" + type, model));
    r.input = model;
    const QuantizeReport report = quantize_model(r);
    EXPECT_GE(std::ranges::count(report.tensors, "gptq", &TensorReport::method), 6);
  }
}

TEST_F(Calibrate, OtherMethodsAndFolders) {
  const std::string model = tiny("llama"), statistics = made("statistics", model);
  QuantizeRequest r = quantize("search.gguf", statistics);
  r.input = model;
  r.method = "search";
  EXPECT_NO_THROW(quantize_model(r));
  for (const std::string method : {"gptq", "adaround"}) {
    r = quantize(method, statistics);
    r.input = model;
    r.type = "int4-g32";
    r.format = "gptq";
    r.method = method;
    const QuantizeReport report = quantize_model(r);
    EXPECT_EQ(std::ranges::count(report.tensors, method, &TensorReport::method), 2 * 7);
  }
}

TEST_F(Calibrate, WhatDoesNotFitIsRefused) {
  const std::string statistics = made("statistics");
  QuantizeRequest r = quantize("out.gguf", statistics);
  r.calib = kText;
  EXPECT_THAT(quantize_refusal(r), HasSubstr("a calibration text or statistics, not both"));
  r = quantize("out.gguf", statistics);
  r.imatrix = folder_ / "some.gguf";
  EXPECT_THAT(quantize_refusal(r), HasSubstr("not both"));
  r = quantize("out.gguf", statistics);
  r.transforms = {"awq"};
  EXPECT_THAT(quantize_refusal(r), HasSubstr("learns from a text"));
  r = quantize("out.gguf", statistics);
  r.input = tiny("llama");
  EXPECT_THAT(quantize_refusal(r), HasSubstr("are of a model"));
  r = quantize("out.gguf", statistics);
  r.input = tiny("qwen3");
  EXPECT_THAT(quantize_refusal(r), HasSubstr("architecture"));
  CalibrateRequest ranges = request("ranges");
  ranges.statistics = "ranges";
  calibrate({}, ranges);
  r = quantize("out.gguf", folder_ / "ranges");
  EXPECT_THAT(quantize_refusal(r), HasSubstr("gptq needs the gram of its inputs"));
  r.method = "search";
  EXPECT_EQ(quantize_refusal(r), "accepted");
  r = quantize("again.gguf", kText);
  EXPECT_THAT(quantize_refusal(r), HasSubstr("books-calib.txt"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "again.gguf"));
}

TEST_F(CalibrateSlow, MergesAndLooks) {
  const std::string first = made("first");
  CalibrateRequest second = request("second");
  write_file_atomically(folder_ / "other.txt", read_file(kText).substr(100000, 20000));
  second.text = folder_ / "other.txt";
  second.merge = {first};
  json::Value report = json::parse(calibrate({}, second).json);
  EXPECT_EQ(report.at("tokens").as_int(), 2048);
  EXPECT_EQ(report.at("texts").as_array().size(), 2u);
  EXPECT_EQ(report.at("inputs").as_array()[0].at("tokens").as_array()[0].as_int(), 2 * 14 * 64);
  EXPECT_EQ(report.at("inputs").as_array()[0].at("held_out_tokens").as_array()[0].as_int(), 2 * 2 * 64);

  CalibrateRequest files;
  files.merge = {folder_ / "second", first};
  const Report looked = calibrate({}, files);
  EXPECT_THAT(looked.text, HasSubstr("text 'books-calib.txt' of"));
  EXPECT_THAT(looked.text, HasSubstr("is counted again"));
  EXPECT_THAT(looked.text, HasSubstr("looked at"));
  files.out = folder_ / "all";
  calibrate({}, files);
  CalibrateRequest look;
  look.merge = {folder_ / "all"};
  EXPECT_THAT(calibrate({}, look).text, HasSubstr("33 inputs over 3072 tokens"));

  files.merge = {first, made("moe", tiny("qwen2_moe"))};
  EXPECT_THAT(refusal([&] { calibrate({}, files); }), HasSubstr("architecture"));
  CalibrateRequest ranges = request("ranges");
  ranges.statistics = "ranges";
  ranges.merge = {first};
  EXPECT_THAT(refusal([&] { calibrate({}, ranges); }), HasSubstr("holds the statistics ranges"));
  EXPECT_FALSE(std::filesystem::exists(ranges.out));
}

TEST_F(Calibrate, TooLittleTextIsTold) {
  CalibrateRequest few = request("few");
  few.tokens = 512;
  const Report report = calibrate({}, few);
  EXPECT_THAT(report.text, HasSubstr("fewer tokens than columns\n"));
  EXPECT_THAT(report.text, HasSubstr("warning: 8 inputs saw fewer tokens than they have columns"));
  const json::Value figures = json::parse(report.json);
  EXPECT_EQ(figures.at("inputs").as_array()[3].at("singular").as_int(), 1);
  EXPECT_EQ(figures.at("warnings").as_array().size(), 1u);
  CalibrateRequest experts = request("experts", tiny("qwen2_moe"));
  experts.tokens = 512;
  const Report starved = calibrate({}, experts);
  EXPECT_THAT(starved.text, HasSubstr("matrices saw fewer than 256 tokens"));
}

TEST_F(Calibrate, Requests) {
  CalibrateRequest r;
  EXPECT_THAT(refusal([&] { calibrate({}, r); }), HasSubstr("give a text, or statistics to merge"));
  r = request("out");
  r.model.clear();
  EXPECT_THAT(refusal([&] { calibrate({}, r); }), HasSubstr("needs a model"));
  r = request("out");
  r.out.clear();
  EXPECT_THAT(refusal([&] { calibrate({}, r); }), HasSubstr("no output file"));
  r = request("out");
  r.statistics = "gram,all";
  EXPECT_THAT(refusal([&] { calibrate({}, r); }), HasSubstr("unknown statistics 'all'"));
  r = request("out");
  r.dry_run = true;
  EXPECT_THAT(calibrate({}, r).text, HasSubstr("would write"));
  EXPECT_FALSE(std::filesystem::exists(r.out));
}

}  // namespace
}  // namespace nibble
