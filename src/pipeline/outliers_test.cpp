// Outliers that were planted are found where they are, and go where a transform takes them.
#include "nibble/outliers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

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

const std::string kRoot = NIBBLE_SOURCE_DIR;
constexpr std::int64_t kPlanted = 17;  // the channel, of the first norm of block 1

class Outliers : public ::testing::Test {
 protected:
  std::string tiny(const std::string& type) const {
    const std::string folder = folder_ / type;
    if (!std::filesystem::exists(folder)) testing::write_tiny_model(folder, testing::tiny_config(type));
    return folder;
  }
  // A llama whose norm makes one channel so many times larger.
  std::string planted(float times) const {
    const std::string folder = tiny("llama"), file = folder + "/model.safetensors";
    const std::uint64_t offset = container::open(folder)->at("model.layers.1.input_layernorm.weight").offset;
    std::string bytes = read_file(file);
    std::memcpy(bytes.data() + offset + kPlanted * sizeof(float), &times, sizeof times);
    write_file_atomically(file, bytes);
    return folder;
  }
  static OutlierRequest request(const std::string& model, const std::vector<std::string>& transforms = {}) {
    OutlierRequest r;
    r.model = model;
    r.text = kRoot + "/text/books-eval.txt";
    r.context = 64;
    r.chunks = 3;
    r.transforms = transforms;
    r.calib = kRoot + "/text/books-calib.txt";
    r.calib_tokens = 512;
    return r;
  }
  static json::Array inputs(const OutlierRequest& r, int threads = 2) {
    return json::parse(find_outliers({.threads = threads}, r).json).at("inputs").as_array();
  }
  static const json::Value& input(const json::Array& all, int layer, const std::string& linear) {
    for (const json::Value& each : all) {
      if (each.at("layer").as_int() == layer && each.at("linears").as_array()[0].as_string() == linear) return each;
    }
    throw std::runtime_error(linear + " is not there");
  }
  static double figure(const json::Value& input, const char* side, const char* key) {
    return input.at(side).at(key).as_number();
  }
  static std::string message_of(const OutlierRequest& r) {
    try {
      find_outliers({}, r);
    } catch (const Error& error) {
      return error.what();
    }
    return "(no error)";
  }

  TemporaryFolder folder_;
};

TEST_F(Outliers, APlantedChannelIsFound) {
  const json::Array all = inputs(request(planted(64)));
  ASSERT_EQ(all.size(), 9u);  // four of each block, and the head
  const json::Value& query = input(all, 1, "attn_q");
  const json::Array expected = {kPlanted};
  EXPECT_EQ(query.at("before").at("feature_columns").as_array(), expected);
  EXPECT_EQ(query.at("tokens").as_int(), 192);
  EXPECT_GT(figure(query, "before", "affected_tokens"), 0.8);
  EXPECT_GT(figure(query, "before", "channel_peak"), 30);
  EXPECT_GT(figure(query, "before", "kurtosis"), 50);
  const json::Value& other = input(all, 0, "attn_q");
  EXPECT_EQ(figure(other, "before", "features"), 0);
  EXPECT_LT(figure(other, "before", "channel_peak"), 3);
  EXPECT_EQ(query.find("after"), nullptr);
}

TEST_F(Outliers, ScalingTakesThemIntoTheWeights) {
  const std::string model = planted(64);
  for (const std::string name : {"smoothquant", "awq"}) {
    SCOPED_TRACE(name);
    const json::Array all = inputs(request(model, {name}));
    const json::Value &query = input(all, 1, "attn_q"), &head = input(all, -1, "output");
    EXPECT_LT(figure(query, "after", "max_abs"), 0.8 * figure(query, "before", "max_abs"));
    EXPECT_LT(figure(query, "after", "channel_peak"), 0.5 * figure(query, "before", "channel_peak"));
    EXPECT_LT(figure(query, "after", "kurtosis"), 0.8 * figure(query, "before", "kurtosis"));
    // The function is the same, and with it what reaches the head.
    for (const char* key : {"least", "largest", "rms", "kurtosis"})
      EXPECT_NEAR(figure(head, "after", key) / figure(head, "before", key), 1, 1e-3) << key;
  }
}

// A rotated token is nearly normal.
TEST_F(Outliers, RotatingSpreadsThem) {
  const json::Array all = inputs(request(planted(64), {"rotate"}));
  const json::Value &query = input(all, 1, "attn_q"), &down = input(all, 1, "ffn_down");
  EXPECT_EQ(figure(query, "after", "features"), 0);
  EXPECT_LT(figure(query, "after", "max_abs"), 0.2 * figure(query, "before", "max_abs"));
  EXPECT_NEAR(figure(query, "after", "kurtosis"), 3, 0.5);
  // What lies inside a half has no rotation.
  EXPECT_NEAR(figure(down, "after", "kurtosis") / figure(down, "before", "kurtosis"), 1, 1e-3);
}

// Rotated first, then smoothed, whatever the order of the words.
TEST_F(Outliers, CompositionsDoNotDependOnTheOrderOfWholeModels) {
  const std::string model = planted(64);
  EXPECT_EQ(inputs(request(model, {"smoothquant:alpha=0.8", "rotate"})),
            inputs(request(model, {"rotate", "smoothquant:alpha=0.8"})));
}

TEST_F(Outliers, TheSameForAnyThreads) {
  const OutlierRequest r = request(planted(64), {"rotate", "smoothquant"});
  EXPECT_EQ(inputs(r, 1), inputs(r, 3));
}

// As the numbers that they decode to.
TEST_F(Outliers, OfQuantizedFiles) {
  QuantizeRequest quantize;
  quantize.input = planted(64);
  quantize.type = "q4_0";
  quantize.method = "rtn";
  quantize.output = folder_ / "q4.gguf";
  quantize_model(quantize);
  const json::Array all = inputs(request(quantize.output, {"smoothquant"}));
  const json::Value& query = input(all, 1, "attn_q");
  EXPECT_EQ(query.at("before").at("feature_columns").as_array(), (json::Array{kPlanted}));
  EXPECT_LT(figure(query, "after", "max_abs"), 0.5 * figure(query, "before", "max_abs"));
}

TEST_F(Outliers, OfOtherArchitectures) {
  for (const std::string type : {"qwen2_moe", "gpt2", "falcon", "deepseek_v3", "gpt_oss", "gemma"}) {
    SCOPED_TRACE(type);
    const json::Array all = inputs(request(tiny(type), {"rotate", "smoothquant"}));
    std::int64_t stacks = 0;
    for (const json::Value& each : all) {
      EXPECT_GT(figure(each, "before", "rms"), 0);
      EXPECT_GT(figure(each, "after", "rms"), 0);
      EXPECT_GE(figure(each, "after", "kurtosis"), 1);
      if (each.at("matrices").as_int() == 4) ++stacks;
    }
    EXPECT_EQ(stacks > 0, type != "gpt2" && type != "falcon" && type != "gemma");
  }
}

TEST_F(Outliers, APlotOfBothSides) {
  OutlierRequest r = request(planted(64), {"rotate"});
  r.plot = folder_ / "plot.svg";
  EXPECT_THAT(find_outliers({}, r).text, HasSubstr("before -> after rotate\n\nlargest of all blocks\n| inputs of "));
  const std::string svg = read_file(r.plot);
  for (const char* text : {"llama, before and after rotate", "max |x|", "kurtosis", "attn_q before", "ffn_down after"})
    EXPECT_THAT(svg, HasSubstr(text));
}

TEST_F(Outliers, WhatCannotBeMeasuredIsTold) {
  const std::string model = planted(64);
  OutlierRequest r = request(model);
  r.text.clear();
  EXPECT_THAT(message_of(r), HasSubstr("give one"));
  write_file_atomically(folder_ / "short.txt", "too short");
  r.text = folder_ / "short.txt";
  EXPECT_THAT(message_of(r), HasSubstr("short.txt"));
  for (const double threshold : {0.0, -1.0, std::nan("")}) {
    r = request(model);
    r.threshold = threshold;
    EXPECT_THAT(message_of(r), HasSubstr("must be a positive number"));
  }
  EXPECT_THAT(message_of(request(model, {"spin"})), HasSubstr("unknown transform 'spin'; one of: awq, rotate"));
  r = request(model, {"smoothquant"});
  r.calib.clear();
  EXPECT_THAT(message_of(r), HasSubstr("transform 'smoothquant' learns from a text"));
  r = request(model, {"smoothquant"});
  r.transform_type = "w9a9";
  EXPECT_THAT(message_of(r), HasSubstr("w9a9"));
  EXPECT_THAT(message_of(request(planted(3e38f))), HasSubstr("block 1, attn_q+attn_k+attn_v: "));
  EXPECT_THAT(message_of(request(planted(std::nanf("")))), HasSubstr("input_layernorm"));
}

}  // namespace
}  // namespace nibble
