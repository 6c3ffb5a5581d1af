// Folders of bitsandbytes' 8 bits: the values that the package's layer multiplies with, what is written back, and what
// is refused.
#include "container/hf/bnb/eight_bits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

#include "container/hf/raw_folder_test.h"
#include "tensor/half.h"

namespace nibble::container {
namespace {

using testing::HasSubstr;

const std::string kModule = "model.layers.0.mlp.down_proj";  // (32, 40); row 3 is zero
const std::string kWeight = kModule + ".weight", kAbsmax = kModule + ".SCB", kOrder = kModule + ".weight_format";

std::vector<float> decode(const TensorView& view) {
  std::vector<float> values(static_cast<std::size_t>(view.shape.elements()));
  encoding::decode_rows(view, 0, view.rows(), values.data());
  return values;
}

std::string fault(const std::function<void(RawFolder&)>& change) { return fault_after("bnb_int8", change); }

TEST(BitsandbytesEightBits, FoldersHaveTheValuesThatTheLayerMultipliesWith) {
  const auto reader = open(golden("bnb_int8"));
  hf::refuse_unread(reader->config());
  const auto expected = open(golden("bnb_int8") / "expected.safetensors");
  EXPECT_EQ(expected->tensors().size(), 7u);
  for (const TensorEntry& entry : expected->tensors()) {
    const TensorView& view = reader->at(entry.name).view;
    EXPECT_EQ(view.encoding->name, "int8-channel");
    EXPECT_EQ(view.inputs.activation->name, "int8-token-over6");
    EXPECT_EQ(view.shape, entry.view.shape) << entry.name;
    EXPECT_EQ(decode(view), decode(entry.view)) << entry.name;
  }
  EXPECT_EQ(reader->tensors().size(), 14u);  // and embedding, head and five norms
  EXPECT_EQ(reader->at("lm_head.weight").view.encoding->name, "f32");
}

TEST(BitsandbytesEightBits, ConfigSaysWhichInputsAreRounded) {
  const auto inputs = [](const json::Value& threshold, std::string_view key) {
    RawFolder folder(golden("bnb_int8"));
    json::Object& config = folder.quantization().as_object();
    std::erase_if(config, [](const auto& item) { return item.first == "llm_int8_threshold"; });
    config.emplace_back(key, threshold);
    const TempFolder written;
    folder.write(written);
    return open(written.path())->at(kWeight).view.inputs.activation->name;
  };
  EXPECT_EQ(inputs(4.5, "llm_int8_threshold"), "int8-token-over4.5");
  EXPECT_EQ(inputs(5, "llm_int8_threshold"), "int8-token-over5");
  EXPECT_EQ(inputs(0.0, "llm_int8_threshold"), "int8-token");
  EXPECT_EQ(inputs(1, "other"), "int8-token-over6");
}

TEST(BitsandbytesEightBits, WritesWhatItReads) {
  const hf::Format& format = *hf::find_format("bnb");
  const auto reader = open(golden("bnb_int8"));
  hf::QuantizedWeights weights;
  weights.kept = {"lm_head"};
  std::vector<PlannedTensor> plan;
  for (const TensorEntry& entry : reader->tensors()) {
    plan.push_back({entry.name, entry.view.encoding, entry.view.shape, entry.view.inputs.activation});
    if (plan.back().inputs != nullptr) weights.tensors.push_back(plan.back());
  }
  EXPECT_EQ(weights.tensors.size(), 7u);
  // The package's own config, but for what is named as kept.
  json::Value config = format.config(weights), theirs_config = reader->config().at("quantization_config");
  EXPECT_EQ(config.at("llm_int8_skip_modules").as_array().size(), 1u);
  config.set("llm_int8_skip_modules", nullptr);
  for (const auto& [key, value] : theirs_config.as_object())
    EXPECT_EQ(json::dump(config.at(key)), json::dump(value)) << key;
  EXPECT_EQ(config.as_object().size(), theirs_config.as_object().size());

  const TempFolder folder;
  folder.write("config.json", json::dump(json::Object{{"quantization_config", config}}));
  const auto writer = hf::create_quantized(folder.path(), {}, plan, format);
  for (std::size_t i = 0; i < plan.size(); ++i) writer->write_tensor(i, reader->tensors()[i].view);
  writer->commit();
  const auto theirs = open(golden("bnb_int8") / "model.safetensors"), ours = open(folder / "model.safetensors");
  EXPECT_EQ(ours->tensors().size(), theirs->tensors().size());
  for (const TensorEntry& entry : theirs->tensors()) {
    const TensorView& view = ours->at(entry.name).view;
    EXPECT_EQ(view.encoding, entry.view.encoding) << entry.name;
    EXPECT_EQ(view.shape, entry.view.shape) << entry.name;
    EXPECT_TRUE(std::ranges::equal(view.data(), entry.view.data())) << entry.name;
  }
}

TEST(BitsandbytesEightBits, FormatHoldsIntegersWhoseInputsAreRounded) {
  const hf::Format& format = *hf::find_format("bnb");
  const auto held = [&](std::string_view weights, std::string_view inputs) {
    return hf::holds(format, encoding::get(weights), inputs.empty() ? nullptr : &encoding::get_activation(inputs));
  };
  for (const char* inputs : {"int8-token", "int8-token-over6", "int8-token-over0.5"})
    EXPECT_TRUE(held("int8-channel", inputs)) << inputs;
  for (const char* inputs : {"", "int8-tensor", "int7-token", "int8-g64", "int8-token-asym", "fp8-token"})
    EXPECT_FALSE(held("int8-channel", inputs)) << inputs;
  for (const char* weights :
       {"int8-tensor", "int8-g64", "int7-channel", "int8-channel-asym", "int8-channel-f16", "nf4"})
    EXPECT_FALSE(held(weights, "int8-token-over6")) << weights;
}

// The package takes SCB from weights in f16.
TEST(BitsandbytesEightBits, LargestMagnitudesOfF16ComeBack) {
  EXPECT_EQ(hf::bnb::absmax_of(0), 0);
  for (std::uint16_t bits = 0; bits < 0x7C00; ++bits) {
    const float absmax = f16_to_f32(bits);
    ASSERT_EQ(hf::bnb::absmax_of(absmax * (1.0f / 127)), absmax) << bits;
  }
}

TEST(BitsandbytesEightBits, ScalesComeBackOrTheirNeighbour) {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> logarithm(-80, 80);
  int same = 0;
  constexpr int kTries = 20000;
  for (int i = 0; i < kTries; ++i) {
    const float scale = std::exp(logarithm(random)), again = hf::bnb::absmax_of(scale) * (1.0f / 127);
    ASSERT_GE(again, std::nextafter(scale, 0.0f)) << scale;
    ASSERT_LE(again, std::nextafter(scale, HUGE_VALF)) << scale;
    same += again == scale ? 1 : 0;
  }
  EXPECT_GT(same, kTries * 0.985);
  EXPECT_LT(same, kTries);
  EXPECT_TRUE(std::isfinite(hf::bnb::absmax_of(3e38f)));
}

TEST(BitsandbytesEightBits, LowestCodeAndFoldersWithoutOrderAreRead) {
  RawFolder folder(golden("bnb_int8"));
  folder.at(kWeight).bytes[5] = std::byte{0x80};
  folder.erase(kOrder);
  const TempFolder written;
  folder.write(written);
  const auto reader = open(written.path());
  float absmax;
  std::memcpy(&absmax, folder.at(kAbsmax).bytes.data(), 4);
  EXPECT_EQ(decode(reader->at(kWeight).view)[5], absmax * (1.0f / 127) * -128);
}

TEST(BitsandbytesEightBits, RefusesFoldersThatContradictThemselves) {
  EXPECT_THAT(fault([](RawFolder& f) { f.quantization().set("llm_int8_has_fp16_weight", true); }),
              HasSubstr("'bitsandbytes' with 'llm_int8_has_fp16_weight'"));
  EXPECT_THAT(fault([](RawFolder& f) { f.erase(kAbsmax); }),
              HasSubstr("'" + kWeight + "' is in i8, but '" + kAbsmax + "' is not there"));
  EXPECT_THAT(fault([](RawFolder& f) { f.erase(kWeight); }),
              HasSubstr("'" + kAbsmax + "' is there, but '" + kWeight + "' is no matrix in i8"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape(kWeight, {32, 40}, "u8"); }), HasSubstr("is no matrix in i8"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape(kWeight, {32, 5, 8}); }), HasSubstr("is no matrix in i8"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape(kAbsmax, {31}); }),
              HasSubstr("'" + kAbsmax + "' is f32 of shape (31), not f32 of shape (32)"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape(kAbsmax, {32}, "f16"); }), HasSubstr("is f16 of shape (32)"));
  for (const std::int32_t bad : {0x7FC00000, 0x7F800000, static_cast<std::int32_t>(0xBF800000)})
    EXPECT_THAT(fault([&](RawFolder& f) { f.set_word(kAbsmax, 7, bad); }), HasSubstr("'" + kAbsmax + "', row 7"));
  EXPECT_THAT(fault([](RawFolder& f) { f.at(kOrder).bytes[0] = std::byte{1}; }),
              HasSubstr("'" + kOrder + "' is 1 (col32)"));
  EXPECT_THAT(fault([](RawFolder& f) { f.at(kOrder).bytes[0] = std::byte{9}; }), HasSubstr("is 9 (unknown)"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape(kOrder, {2}); }), HasSubstr("not one number in u8"));
}

}  // namespace
}  // namespace nibble::container
