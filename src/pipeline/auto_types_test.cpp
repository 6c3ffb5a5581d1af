// Mixes made for a size.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "container/checkpoint.h"
#include "json/json.h"
#include "nibble/quantize.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;

const std::string kText = std::string(NIBBLE_SOURCE_DIR) + "/text/books-calib.txt";

class Auto : public ::testing::Test {
 protected:
  Auto() {
    json::Value config = testing::tiny_config("llama");
    config.set("hidden_size", 256);
    config.set("intermediate_size", 256);
    config.set("head_dim", 64);
    config.set("num_attention_heads", 4);
    config.set("num_key_value_heads", 2);
    testing::write_tiny_model(folder_ / "model", config);
  }
  QuantizeRequest request(double bits_per_weight) const {
    QuantizeRequest r;
    r.input = folder_ / "model";
    r.output = folder_ / "out.gguf";
    r.type = "auto";
    r.calib = kText;
    r.calib_tokens = 512;
    r.judge_tokens = 256;
    r.calib_context = 64;
    r.method = "search";
    r.bits_per_weight = bits_per_weight;
    return r;
  }
  // What lies beside the model.
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path())) {
      const std::string name = entry.path().filename().string();
      if (name != "model") names.push_back(name);
    }
    std::ranges::sort(names);
    return names;
  }
  TemporaryFolder folder_;
};
using AutoSlow = Auto;

std::string message_of(const QuantizeRequest& r) {
  try {
    quantize_model(r);
  } catch (const Error& error) {
    return error.what();
  }
  return "(no error)";
}

std::vector<std::string> types_of(const QuantizeReport& report) {
  std::vector<std::string> types;
  for (const TensorReport& tensor : report.tensors) types.push_back(tensor.type);
  return types;
}

TEST_F(Auto, KeepsToTheSizeAndIsNoWorseThanTheStockMix) {
  const QuantizeReport report = quantize_model(request(7.5));
  EXPECT_LE(report.bits_per_weight, 7.5);
  EXPECT_EQ(report.file_bytes, fs::file_size(folder_ / "out.gguf"));
  EXPECT_LE(report.file_bytes, report.size_limit);
  EXPECT_GT(report.predicted_kld, 0);
  ASSERT_EQ(report.compared.size(), 2u);
  EXPECT_LE(report.compared[0].kld, report.compared[1].kld);
  EXPECT_EQ(report.compared[0].recipe, report.recipe);
  EXPECT_EQ(report.compared[0].bytes, report.file_bytes);
  EXPECT_THAT(to_text(report), ::testing::HasSubstr("is kept"));
  EXPECT_EQ(json::parse(to_json(report)).at("compared").as_array().size(), 2u);
  EXPECT_EQ(files(), (std::vector<std::string>{"out.gguf"}));
}

TEST_F(AutoSlow, ByGptqForAnyThreads) {
  QuantizeRequest r = request(7.5);
  r.method = "gptq";
  r.calib_tokens = 256;
  r.dry_run = true;
  EXPECT_EQ(types_of(quantize_model(r, {.threads = 1})), types_of(quantize_model(r, {.threads = 3})));
  EXPECT_TRUE(files().empty());
}

TEST_F(Auto, TheRecipeMakesTheSameMix) {
  QuantizeRequest r = request(7.5);
  r.dry_run = true;
  r.emit_recipe = folder_ / "mix.json";
  const QuantizeReport found = quantize_model(r);
  EXPECT_TRUE(found.dry_run);
  EXPECT_EQ(files(), (std::vector<std::string>{"mix.json"}));
  QuantizeRequest again = request(0);
  again.type = r.emit_recipe;
  const QuantizeReport made = quantize_model(again);
  EXPECT_EQ(types_of(made), types_of(found));
  EXPECT_LE(made.file_bytes, found.size_limit);
}

// More bytes, less predicted loss; the tensors that lose most get the most bits.
TEST_F(AutoSlow, MoreBytesLoseLess) {
  double before = 1e9;
  for (const double bits : {7.0, 8.0, 9.0, 12.0}) {
    QuantizeRequest r = request(bits);
    r.dry_run = true;
    const QuantizeReport report = quantize_model(r);
    EXPECT_LT(report.predicted_kld, before);
    before = report.predicted_kld;
  }
}

TEST_F(Auto, FromWeightsAlone) {
  QuantizeRequest r = request(8);
  r.calib.clear();
  r.method.clear();
  r.overrides = {"attn_v=q8_0"};
  const QuantizeReport report = quantize_model(r);
  EXPECT_LE(report.bits_per_weight, 8);
  EXPECT_EQ(report.compared.size(), 1u);
  for (const TensorReport& tensor : report.tensors) {
    if (tensor.name.find("attn_v") != std::string::npos) {
      EXPECT_EQ(tensor.type, "q8_0") << tensor.name;
    }
  }
}

// Experts, parallel halves, transposed and fused weights, an embedding that is not the head, rows that blocks of 256 do
// not divide.
TEST_F(Auto, EveryKindOfBlock) {
  for (const std::string type : {"qwen2_moe", "phi", "gpt2", "deepseek_v3"}) {
    SCOPED_TRACE(type);
    testing::write_tiny_model(folder_ / type, testing::tiny_config(type));
    QuantizeRequest r = request(0);
    r.input = folder_ / type;
    QuantizeRequest same = r;
    same.type = "q8_0";
    r.size_bytes = quantize_model(same).file_bytes - 1;
    r.dry_run = true;
    const QuantizeReport report = quantize_model(r);
    EXPECT_GT(report.predicted_kld, 0);
    EXPECT_LT(report.predicted_kld, 1);
  }
}

TEST_F(Auto, WhatCannotBeIsTold) {
  using ::testing::HasSubstr;
  EXPECT_THAT(message_of(request(0)), HasSubstr("--size"));
  QuantizeRequest both = request(8);
  both.size_bytes = 100000;
  EXPECT_THAT(message_of(both), HasSubstr("--size"));
  EXPECT_THAT(message_of(request(0.5)), HasSubstr("too few: files of this model take"));
  QuantizeRequest folder = request(8);
  folder.output = folder_ / "out";
  EXPECT_THAT(message_of(folder), HasSubstr(".gguf"));
  folder = request(8);
  folder.format = "gptq";
  EXPECT_THAT(message_of(folder), HasSubstr(".gguf"));
  QuantizeRequest pure = request(8);
  pure.pure = true;
  EXPECT_THAT(message_of(pure), HasSubstr("--pure"));
  QuantizeRequest nowhere = request(8);
  nowhere.output = folder_ / "no/such/folder.gguf";
  EXPECT_THAT(message_of(nowhere), HasSubstr("no/such"));
  QuantizeRequest stock = request(8);
  stock.type = "q4_0";
  EXPECT_THAT(message_of(stock), HasSubstr("--type auto"));
  EXPECT_TRUE(files().empty());
}

TEST_F(Auto, StoppedItLeavesNothing) {
  CancelToken cancel;
  cancel.cancel();
  EXPECT_THROW(quantize_model(request(8), {.cancel = &cancel}), Error);
  EXPECT_TRUE(files().empty());
}

}  // namespace
}  // namespace nibble
