// Small floats whose inputs are rounded, too (testdata/ct_fp8_inputs, made by dev/golden/compressed_floats.py): what
// the package compressed-tensors rounds them to, what is written back, and folders that are damaged.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "container/hf/format.h"
#include "container/hf/raw_folder_test.h"
#include "encoding/activation.h"
#include "encoding/scaled.h"

namespace nibble::container {
namespace {

using testing::HasSubstr;

constexpr const char* kFolder = "ct_fp8_inputs";
struct Golden {
  std::string module;
  const char *weights, *inputs, *preset;
};
const Golden kModules[] = {{"tokens", "fp8-channel-bf16", "fp8-token", "group_0"},
                           {"fixed", "fp8-tensor", "fp8-tensor", "group_1"},
                           {"blocks", "fp8-block128x128", "fp8-g128", "group_2"},
                           {"powers", "mxfp8", "fp8-g32-e8m0", "group_3"}};

std::vector<float> decode(const TensorView& view) {
  std::vector<float> values(static_cast<std::size_t>(view.shape.elements()));
  encoding::decode_rows(view, 0, view.rows(), values.data());
  return values;
}

std::vector<float> rounded(const InputRounding& rounding, const TensorView& x) {
  std::vector<float> values = decode(x);
  for (std::int64_t row = 0; row < x.rows(); ++row) {
    float* at = values.data() + row * x.cols();
    encoding::round_inputs(rounding, at, x.cols(), at);
  }
  return values;
}

TEST(FloatInputs, AreRoundedAsThePackageRoundsThem) {
  const auto reader = open(golden(kFolder)), expected = open(golden(kFolder) / "expected.safetensors");
  hf::refuse_unread(reader->config());
  EXPECT_EQ(reader->tensors().size(), 5u);  // four linears and a norm
  for (const Golden& each : kModules) {
    SCOPED_TRACE(each.module);
    const TensorView& view = reader->at(each.module + ".weight").view;
    EXPECT_EQ(view.encoding->name, each.weights);
    EXPECT_EQ(decode(view), decode(expected->at(each.module + ".weight").view));
    ASSERT_NE(view.inputs.activation, nullptr);
    EXPECT_EQ(view.inputs.activation->name, each.inputs);
    const std::vector<float> values = rounded(view.inputs, expected->at(each.module + ".x").view);
    EXPECT_EQ(values, decode(expected->at(each.module + ".rounded").view));
    EXPECT_NE(values, decode(expected->at(each.module + ".x").view));
  }
}

// DeepSeek V3's act_quant, with and without scales that are powers of two.
TEST(FloatInputs, OfGroupsAreThoseOfActQuant) {
  const auto expected = open(golden(kFolder) / "expected.safetensors");
  const TensorView& x = expected->at("act_quant.x").view;
  for (const auto& [type, name] : {std::pair("fp8-g128", "act_quant.rounded"), {"fp8-g128-e8m0", "act_quant.powers"}})
    EXPECT_EQ(rounded({&encoding::get_activation(type)}, x), decode(expected->at(name).view)) << type;
}

// Tensors bit for bit, but fixed scales of inputs in f32, and the groups of the config.
TEST(FloatInputs, AreWrittenAsTheyLie) {
  const hf::Format& format = *hf::find_format("compressed-tensors");
  const auto reader = open(golden(kFolder)), theirs = open(golden(kFolder) / "model.safetensors");
  for (const Golden& each : kModules) {
    SCOPED_TRACE(each.module);
    const std::string name = each.module + ".weight";
    const TensorView& view = reader->at(name).view;
    ASSERT_TRUE(hf::holds(format, *view.encoding, view.inputs.activation));
    const std::vector<PlannedTensor> plan = {{name, view.encoding, view.shape, view.inputs.activation}};
    const json::Value config = format.config({plan, {"lm_head"}, "rtn", 0});
    const json::Value &group = config.at("config_groups").at("group_0"),
                      &their_group = reader->config().at("quantization_config").at("config_groups").at(each.preset);
    for (const char* side : {"weights", "input_activations"}) {
      for (const auto& [key, value] : their_group.at(side).as_object()) {
        if (key == "observer") continue;  // asks for a calibration, which is done
        EXPECT_EQ(json::dump(group.at(side).at(key)), json::dump(value)) << side << " " << key;
      }
    }
    EXPECT_EQ(group.at("format").as_string(), their_group.at("format").as_string());

    const TempFolder folder;
    folder.write("config.json", json::dump(json::Object{{"quantization_config", config}}));
    const auto writer = hf::create_quantized(folder.path(), {}, plan, format);
    writer->write_tensor(0, view);
    writer->commit();
    const auto ours = open(folder / "model.safetensors"), again = open(folder.path());
    EXPECT_EQ(again->at(name).view.inputs, view.inputs);
    EXPECT_EQ(again->tensors().size(), 1u);
    for (const TensorEntry& entry : ours->tensors()) {
      const TensorView& their = theirs->at(entry.name).view;
      EXPECT_EQ(entry.view.shape, their.shape) << entry.name;
      if (entry.name.ends_with(".input_scale")) {
        EXPECT_EQ(decode(entry.view), decode(their));
      } else {
        EXPECT_TRUE(std::ranges::equal(entry.view.data(), their.data())) << entry.name;
      }
    }
  }
}

TEST(FloatInputs, GoWhereAFormatCanSayThem) {
  const auto held = [](const char* format, const char* type, const char* inputs) {
    return hf::holds(*hf::find_format(format), encoding::get(type), &encoding::get_activation(inputs));
  };
  EXPECT_TRUE(held("compressed-tensors", "fp8-tensor-bf16", "fp8-tensor"));
  EXPECT_TRUE(held("compressed-tensors", "fp8-block128x128-bf16", "fp8-g128"));
  EXPECT_TRUE(held("fp8", "fp8-block128x128", "fp8-g128"));
  EXPECT_TRUE(held("fp8", "fp8-block128x128-e8m0", "fp8-g128-e8m0"));
  EXPECT_TRUE(held("nibble", "fp8-channel-e5m2", "fp8-token"));
  for (const char* inputs : {"int8-token", "fp8-g128-e8m0", "fp8-token-e8m0"})
    EXPECT_FALSE(held("compressed-tensors", "fp8-channel-bf16", inputs)) << inputs;
  for (const char* inputs : {"fp8-token", "fp8-g32", "fp8-g64-e8m0"})
    EXPECT_FALSE(held("compressed-tensors", "mxfp8", inputs)) << inputs;
  EXPECT_FALSE(held("compressed-tensors", "nvfp4-hf", "fp8-token"));
  EXPECT_FALSE(held("compressed-tensors", "int8-channel-bf16", "fp8-token"));
  for (const char* inputs : {"fp8-token", "fp8-tensor", "fp8-g64", "fp8-g128-e8m0", "int8-token"})
    EXPECT_FALSE(held("fp8", "fp8-block128x128", inputs)) << inputs;
}

TEST(DamagedFloatInputs, AreNamed) {
  const auto after = [](auto&& change) { return fault_after(kFolder, change); };
  const auto with = [&](float scale) {
    return after([&](RawFolder& folder) {
      folder.reshape("fixed.input_scale", {1}, "f32");
      folder.set_word("fixed.input_scale", 0, std::bit_cast<std::int32_t>(scale));
    });
  };
  for (const float scale : {0.0f, -1.0f, NAN, INFINITY})
    EXPECT_THAT(with(scale), HasSubstr("tensor 'fixed.input_scale': the scale of its inputs is")) << scale;
  EXPECT_THAT(after([](RawFolder& folder) { folder.erase("fixed.input_scale"); }),
              HasSubstr("tensor 'fixed.input_scale' is not there, which scales inputs"));
  EXPECT_THAT(after([](RawFolder& folder) { folder.reshape("fixed.input_scale", {2}); }),
              HasSubstr("tensor 'fixed.input_scale' is bf16 of shape (2), not one number"));
}

}  // namespace
}  // namespace nibble::container
