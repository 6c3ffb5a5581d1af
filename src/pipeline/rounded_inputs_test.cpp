// Types that round inputs, from the request to what the model computes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "container/checkpoint.h"
#include "encoding/activation.h"
#include "encoding/encoding.h"
#include "json/json.h"
#include "model/source.h"
#include "nibble/evaluate.h"
#include "nibble/inspect.h"
#include "nibble/quantize.h"
#include "pipeline/joint_types.h"
#include "testing/program.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using nibble::testing::TemporaryFolder;
using ::testing::HasSubstr;

const fs::path kRoot = NIBBLE_SOURCE_DIR;
const std::string kLinear = "model.layers.3.mlp.down_proj.weight";

class RoundedInputs : public ::testing::Test {
 protected:
  QuantizeRequest request(const std::string& output, const std::string& type) const {
    QuantizeRequest r;
    r.input = (kRoot / "models/books-7m").string();
    r.output = folder_ / output;
    r.type = type;
    r.method = "rtn";
    r.calib_tokens = 1024;
    return r;
  }
  QuantizeRequest learned(const std::string& output, const std::string& type) const {
    QuantizeRequest r = request(output, type);
    r.calib = (kRoot / "text/books-calib.txt").string();
    return r;
  }
  std::string fault(const QuantizeRequest& r) const {
    try {
      quantize_model(r);
    } catch (const Error& error) {
      EXPECT_FALSE(fs::exists(r.output));
      return error.what();
    }
    ADD_FAILURE() << "no Error was thrown";
    return "";
  }
  InputRounding inputs_of(const std::string& output, const std::string& tensor = kLinear) const {
    return container::open(folder_ / output)->at(tensor).view.inputs;
  }
  json::Value measured(const std::string& output) const {
    EvaluateRequest r;
    r.model = folder_ / output;
    r.reference = kRoot / "models/books-7m";
    r.text = kRoot / "text/books-eval.txt";
    r.context = 128;
    r.chunks = 2;
    r.exact = true;
    return json::parse(evaluate({}, r).json);
  }

  TemporaryFolder folder_;
};

using RoundedInputsSlow = RoundedInputs;

TEST_F(RoundedInputs, TypesNameBothSides) {
  const auto type = pipeline::find_joint_type("zeroquant-w4a8-g64");
  ASSERT_TRUE(type);
  EXPECT_EQ(type->weights->name, "int4-g64");
  EXPECT_EQ(type->attention->name, "int8-g64");
  EXPECT_EQ(type->inputs->name, "int8-token");
  for (const char* name : {"w8a8-", "w4a8", "w4a8-g", "w4a8-g0", "w4a8-gN", "int8-channel"})
    EXPECT_FALSE(pipeline::find_joint_type(name)) << name;
}

// The fast path computes with the same codes: what is between the two paths is the order of sums, and the cache's f16.
TEST_F(RoundedInputsSlow, BothPathsRoundAlike) {
  struct Case {
    const char *type, *inputs, *weights;
    double most;  // KL divergence from the unquantized model
  };
  const Case cases[] = {{"w8a8", "int8-token", "int8-channel-bf16", 0.002},
                        {"w4a8-g96", "int8-token", "int4-g96-bf16", 0.02},
                        {"zeroquant-w4a8-g32", "int8-token", "int4-g32-bf16", 0.02},
                        {"llm-int8", "int8-token-over6", "int8-channel", 0.002},
                        {"w4a4", "int4-token", "int4-channel-bf16", 0.5},
                        {"w8a8-fp8", "fp8-token", "fp8-channel-bf16", 0.002},
                        {"w8a8-fp8-block128", "fp8-g128", "fp8-block128x128", 0.002},
                        {"w8a8-mxfp8", "fp8-g32-e8m0", "mxfp8", 0.002}};
  for (const Case& each : cases) {
    SCOPED_TRACE(each.type);
    quantize_model(request(each.type, each.type));
    EXPECT_EQ(inputs_of(each.type).activation->name, each.inputs);
    EXPECT_EQ(container::open(folder_ / each.type)->at(kLinear).view.encoding->name, each.weights);
    EXPECT_THAT(to_text(inspect_model({folder_ / each.type})),
                HasSubstr(std::string("  inputs ") + each.inputs + "\n"));
    const json::Value report = measured(each.type);
    const double exact = report.get("kld_mean_exact", 0.0), fast = report.get("kld_mean", 0.0);
    EXPECT_LT(exact, each.most);
    EXPECT_GT(exact, 0);
    EXPECT_NEAR(fast / exact, 1, 0.25);
  }
}

// bitsandbytes' form of them, which is written again as it is read.
TEST_F(RoundedInputs, BitsandbytesHoldsThoseOfATokenWithAThreshold) {
  for (const auto& [type, inputs] : {std::pair{"llm-int8", "int8-token-over6"}, std::pair{"w8a8", "int8-token"}}) {
    QuantizeRequest r = request(type, type);
    r.format = "bnb";
    quantize_model(r);
    EXPECT_EQ(inputs_of(type).activation->name, inputs);
    EXPECT_EQ(container::open(folder_ / type)->at(kLinear).view.encoding->name, "int8-channel");
    r.input = folder_ / type;
    r.output = folder_ / "again";
    quantize_model(r);
    const auto weights_of = [&](const char* folder) { return read_file(folder_ / folder + "/model.safetensors"); };
    EXPECT_EQ(weights_of("again"), weights_of(type));
    fs::remove_all(folder_ / "again");
  }
  quantize_model(request("plain", "llm-int8"));
  EXPECT_EQ(json::parse(read_file(folder_ / "plain" + "/config.json"))
                .at("quantization_config")
                .at("quant_method")
                .as_string(),
            "nibble");
  // The scales of some rows are the f32 numbers beside those that were chosen.
  const auto values_of = [&](const char* folder) {
    const auto reader = container::open(folder_ / folder);
    const TensorView& view = reader->at(kLinear).view;
    std::vector<float> values(static_cast<std::size_t>(view.shape.elements()));
    encoding::decode_rows(view, 0, view.rows(), values.data());
    return values;
  };
  const std::vector<float> chosen = values_of("plain"), held = values_of("llm-int8");
  for (std::size_t i = 0; i < chosen.size(); ++i)
    ASSERT_LE(std::fabs(held[i] - chosen[i]), 2.5e-7f * std::fabs(chosen[i])) << i;
}

TEST_F(RoundedInputsSlow, FixedScalesAreLearnedWrittenAndRead) {
  for (const char* format : {"compressed-tensors", "nibble"}) {
    QuantizeRequest r = learned(format, "w8a8-static");
    r.format = format;
    quantize_model(r);
    const InputRounding rounding = inputs_of(format);
    EXPECT_EQ(rounding.activation->name, "int8-tensor");
    EXPECT_GT(rounding.scale, 0);
    EXPECT_LT(rounding.scale, 1);
  }
  // Weights of other scales let other numbers through.
  EXPECT_NEAR(inputs_of("compressed-tensors").scale / inputs_of("nibble").scale, 1, 0.2);
  // Linears of one input share its scale.
  EXPECT_EQ(inputs_of("nibble", "model.layers.1.self_attn.q_proj.weight"),
            inputs_of("nibble", "model.layers.1.self_attn.v_proj.weight"));
  // The whole range is wider than the one with the least error.
  QuantizeRequest wide = learned("wide", "w8a8-static");
  wide.observer = "minmax";
  quantize_model(wide);
  EXPECT_GE(inputs_of("wide").scale, inputs_of("nibble").scale);
}

// LLM.int8() of a text: columns where inputs are largest lie in 16 bits, in the same place for linears of one input.
TEST_F(RoundedInputsSlow, OutlierColumnsAreFoundAndKept) {
  quantize_model(learned("kept", "llm-int8"));
  const auto reader = container::open(folder_ / "kept");
  const TensorView& view = reader->at(kLinear).view;
  EXPECT_EQ(view.encoding->name, "int8-channel-kept8");
  EXPECT_EQ(view.inputs.activation->name, "int8-token-over6");
  ASSERT_EQ(view.inputs.kept.size(), 8);
  EXPECT_EQ(reader->at("model.layers.1.self_attn.q_proj.weight").view.inputs,
            reader->at("model.layers.1.self_attn.v_proj.weight").view.inputs);
  const json::Value report = measured("kept");
  const double exact = report.get("kld_mean_exact", 0.0), fast = report.get("kld_mean", 0.0);
  EXPECT_LT(exact, 0.0005);
  EXPECT_NEAR(fast / exact, 1, 0.25);
  EXPECT_THAT(fault(request("o", "int8-channel-kept4")), HasSubstr("--calib"));
}

// Inputs of the down projections have outliers that no weight can take: mixed as the model runs they have none.
TEST_F(RoundedInputsSlow, InputsAreRotatedAsTheModelRuns) {
  QuantizeRequest r = learned("plain", "w8a8-static");
  quantize_model(r);
  r = learned("online", "w8a8-static");
  r.transforms = {"rotate:online"};
  quantize_model(r);
  const json::Value plain = measured("plain"), online = measured("online");
  EXPECT_LT(online.get("kld_mean_exact", 1.0), 0.2 * plain.get("kld_mean_exact", 0.0));
  EXPECT_NEAR(online.get("kld_mean", 0.0) / online.get("kld_mean_exact", 0.0), 1, 0.25);
  // No other form says so, nor does what is made of it.
  r.format = "compressed-tensors";
  r.output = folder_ / "o";
  EXPECT_THAT(fault(r), HasSubstr("--format nibble"));
  r = request("o.gguf", "q4_0");
  r.input = folder_ / "online";
  EXPECT_THAT(fault(r), HasSubstr("--format nibble"));
  r = learned("o", "w8a8");
  r.input = folder_ / "online";
  r.transforms = {"rotate"};
  EXPECT_THAT(fault(r), HasSubstr("rotated already"));
  r.transforms = {"rotate:offline"};
  EXPECT_THAT(fault(r), HasSubstr("'online'"));
}

TEST_F(RoundedInputsSlow, FixedScalesOfFloatsAreThoseOfTheInputs) {
  quantize_model(learned("q", "w8a8-fp8-static"));
  const InputRounding learned_scale = inputs_of("q");
  EXPECT_EQ(learned_scale.activation->name, "fp8-tensor");
  EXPECT_EQ(container::open(folder_ / "q")->at(kLinear).view.encoding->name, "fp8-tensor-bf16");
  const json::Value report = measured("q");
  EXPECT_LT(report.get("kld_mean_exact", 1.0), 0.003);
  // They go over where the weights do, and are not learned anew.
  QuantizeRequest r = request("again", "w8a8-fp8-static");
  r.input = folder_ / "q";
  r.format = "nibble";
  quantize_model(r);
  EXPECT_EQ(inputs_of("again"), learned_scale);
  EXPECT_EQ(measured("again").get("kld_mean_exact", 0.0), report.get("kld_mean_exact", 1.0));
  // Other weights need a text.
  r.output = folder_ / "o";
  r.type = "w8a8-static";
  EXPECT_THAT(fault(r), HasSubstr("--calib"));
  // A type that leaves inputs as they are leaves them so.
  r.type = "fp8-tensor";
  quantize_model(r);
  EXPECT_EQ(inputs_of("o").activation, nullptr);
}

// W4AFP8, a preset of compressed-tensors that is read and not written.
TEST_F(RoundedInputs, OfFloatsGoWithWeightsOfIntegers) {
  quantize_model(request("q", "int4-g128"));
  const double plain = measured("q").get("kld_mean_exact", 0.0);
  std::string config = read_file(folder_ / "q/config.json");
  const std::string none = "\"input_activations\": null";
  ASSERT_NE(config.find(none), std::string::npos);
  config.replace(config.find(none), none.size(),
                 R"("input_activations": {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": true})");
  write_file_atomically(folder_ / "q/config.json", config);
  EXPECT_EQ(inputs_of("q").activation->name, "fp8-token");
  EXPECT_EQ(container::open(folder_ / "q")->at(kLinear).view.encoding->name, "int4-g128-bf16");
  const json::Value report = measured("q");
  const double exact = report.get("kld_mean_exact", 0.0);
  EXPECT_NE(exact, plain);
  EXPECT_NEAR(exact / plain, 1, 0.5);
  EXPECT_NEAR(report.get("kld_mean", 0.0) / exact, 1, 0.25);
}

// "fp8" folders have no way to say that inputs stay as they are.
TEST_F(RoundedInputs, AreRoundedWhereAFormatAlwaysRounds) {
  for (const auto& [type, inputs] : {std::pair{"fp8-block128", "fp8-g128"},
                                     {"w8a8-fp8-block128", "fp8-g128"},
                                     {"fp8-block64", "fp8-g64"},
                                     {"fp8-block128-e8m0", "fp8-g128-e8m0"}}) {
    SCOPED_TRACE(type);
    QuantizeRequest r = request(type, type);
    r.format = "fp8";
    const QuantizeReport report = quantize_model(r);
    EXPECT_EQ(inputs_of(type).activation->name, inputs);
    const bool noted = std::ranges::any_of(
        report.notes, [](const std::string& note) { return note.find("inputs are rounded") != note.npos; });
    EXPECT_EQ(noted, std::string_view(type).starts_with("fp8"));
  }
  quantize_model(request("weights", "fp8-block128"));
  EXPECT_EQ(inputs_of("weights").activation, nullptr);
}

TEST_F(RoundedInputs, WhatCannotBeIsRefused) {
  EXPECT_THAT(fault(request("o", "w8a8-static")), HasSubstr("--calib"));
  QuantizeRequest r = request("o", "w8a8");
  r.format = "gptq";
  EXPECT_THAT(fault(r), HasSubstr("compressed-tensors, bnb, nibble"));
  EXPECT_THAT(fault(request("o.gguf", "w8a8")), HasSubstr("name a folder"));
  r = request("o", "llm-int8");
  r.format = "compressed-tensors";
  EXPECT_THAT(fault(r), HasSubstr("as: bnb, nibble"));
  r = request("o", "int8-channel");
  r.format = "bnb";
  EXPECT_THAT(fault(r), HasSubstr("whose integers round the inputs, too (types 'w8a8', 'llm-int8')"));
  r = learned("o", "w8a8");
  r.transforms = {"smoothquant:alpha=2"};
  EXPECT_THAT(fault(r), HasSubstr("0 to 1"));
  r.transforms = {"awq:x"};
  EXPECT_THAT(fault(r), HasSubstr("no settings"));
  r = learned("o", "w8a8-static");
  r.observer = "most";
  EXPECT_THAT(fault(r), HasSubstr("percentile"));
}

TEST_F(RoundedInputs, BadFoldersAreNamed) {
  quantize_model(learned("q", "w8a8-static"));
  const auto fault_of_folder = [&]() -> std::string {
    try {
      model::ModelSource::open(folder_ / "q");
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(fault_of_folder(), "");
  const std::string scale = "model.layers.3.mlp.down_proj.input_scale";
  const fs::path file = folder_ / "q/model.safetensors";
  const std::uint64_t offset = container::open(file)->at(scale).offset;
  const std::string weights = read_file(file);
  for (const float bad : {0.0f, -1.0f, std::nanf(""), HUGE_VALF}) {
    std::string changed = weights;
    std::memcpy(changed.data() + offset, &bad, 4);
    write_file_atomically(file, changed);
    EXPECT_THAT(fault_of_folder(), HasSubstr(scale)) << bad;
  }
  write_file_atomically(file, weights);
  std::string config = read_file(folder_ / "q/config.json");
  const std::size_t at = config.find("\"num_bits\": 8", config.find("input_activations"));
  ASSERT_NE(at, std::string::npos);
  config.replace(at + 12, 1, "3");
  write_file_atomically(folder_ / "q/config.json", config);
  EXPECT_THAT(fault_of_folder(), HasSubstr("input_activations"));
}

}  // namespace
}  // namespace nibble
