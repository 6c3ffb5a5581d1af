// Small floats with their scales, both ways: what the package compressed-tensors made (testdata/ct_*, made by
// dev/golden/compressed_floats.py), what is written and read again, and folders that are damaged.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/rng.h"
#include "container/hf/format.h"
#include "container/hf/raw_folder_test.h"
#include "encoding/scaled.h"
#include "tensor/half.h"

namespace nibble::container {
namespace {

using testing::HasSubstr;

std::vector<float> decode(const TensorView& view) {
  std::vector<float> values(static_cast<std::size_t>(view.shape.elements()));
  encoding::decode_rows(view, 0, view.rows(), values.data());
  return values;
}

TEST(CompressedFloats, AreWhatThePackageDecodes) {
  struct Case {
    const char *folder, *tensor, *type;
  };
  for (const Case& each : {Case{"ct_fp8", "rows.weight", "fp8-channel-bf16"},
                           {"ct_fp8", "blocks.weight", "fp8-block16x24"},
                           {"ct_mxfp8", "a.weight", "mxfp8"},
                           {"ct_mxfp4", "a.weight", "mxfp4-hf"},
                           {"ct_nvfp4", "a.weight", "nvfp4-hf"}}) {
    SCOPED_TRACE(std::string(each.folder) + " " + each.tensor);
    const auto reader = open(golden(each.folder));
    hf::refuse_unread(reader->config());
    const auto expected = open(golden(each.folder) / "expected.safetensors");
    const TensorView& view = reader->at(each.tensor).view;
    const TensorView& values = expected->at(each.tensor).view;
    EXPECT_EQ(view.encoding->name, each.type);
    EXPECT_EQ(view.shape, values.shape);
    EXPECT_EQ(std::memcmp(decode(view).data(), values.data().data(), values.n_bytes()), 0);
    EXPECT_EQ(reader->tensors().size(), expected->tensors().size() + 1);  // and a norm
  }
}

// --- written and read again

// A tensor of random codes that are numbers, and scales between 1 and 2.
Tensor make_floats(const encoding::EncodingInfo& info, const Shape& shape) {
  Tensor tensor = encoding::allocate(info, shape);
  std::uint64_t draw = 0;
  for (std::byte& code : tensor.mutable_part(PartRole::kCodes))
    code = static_cast<std::byte>(random_bits(6, 0, draw++) &
                                  (info.scaled.code == encoding::FloatCode::kE2m1 ? 0xFF : 0xB7));
  const Part& scales = tensor.view().part(PartRole::kScales);
  const std::span<std::byte> bytes = tensor.mutable_part(PartRole::kScales);
  for (std::int64_t i = 0; i < scales.shape.elements(); ++i) {
    const float scale = 1 + random_uniform(6, 1, static_cast<std::uint64_t>(i));
    encoding::store_float_scale(scales.dtype, encoding::round_float_scale(scales.dtype, scale), bytes.data(), i);
  }
  const float global = 3.7f;
  if (info.scaled.global_scale) std::memcpy(tensor.mutable_part(PartRole::kGlobalScale).data(), &global, 4);
  return tensor;
}

void write(const TempFolder& folder, const hf::Format& format, const Tensor& tensor) {
  const TensorView& view = tensor.view();
  const std::vector<PlannedTensor> plan = {{"model.layers.0.mlp.up_proj.weight", view.encoding, view.shape}};
  const auto writer = hf::create_quantized(folder.path(), {}, plan, format);
  writer->write_tensor(0, view);
  writer->commit();
  folder.write("config.json",
               json::dump(json::Object{{"quantization_config", format.config({plan, {"lm_head"}, "rtn", 0})}}));
}

TEST(WrittenFloats, AreReadAgain) {
  struct Case {
    const char *format, *type;
    Shape shape;
  };
  for (const Case& each : {Case{"fp8", "fp8-block128x128", {200, 150}},
                           {"fp8", "fp8-block16x24", {40, 50}},
                           {"fp8", "fp8-block128x128-e8m0", {200, 150}},
                           {"compressed-tensors", "fp8-tensor-bf16", {20, 15}},
                           {"compressed-tensors", "fp8-channel-f16", {20, 15}},
                           {"compressed-tensors", "fp8-block128x128", {200, 150}},
                           {"compressed-tensors", "fp8-block1x64-bf16", {20, 128}},
                           {"compressed-tensors", "mxfp8", {20, 96}},
                           {"compressed-tensors", "mxfp4-hf", {20, 96}},
                           {"compressed-tensors", "nvfp4-hf", {20, 96}},
                           {"nibble", "fp8-channel-e5m2-bf16", {20, 15}},
                           {"nibble", "nvfp4-hf", {20, 96}},
                           {"nibble", "mxfp8-e5m2", {20, 50}}}) {
    SCOPED_TRACE(std::string(each.format) + " " + each.type);
    const hf::Format& format = *hf::find_format(each.format);
    const encoding::EncodingInfo& type = encoding::get(each.type);
    ASSERT_TRUE(hf::holds(format, type));
    EXPECT_EQ(hf::misfit(format, type, each.shape), "");
    const Tensor tensor = make_floats(type, each.shape);
    const TempFolder folder;
    write(folder, format, tensor);
    const auto reader = open(folder.path());
    hf::refuse_unread(reader->config());
    ASSERT_EQ(reader->tensors().size(), 1u);
    const TensorView& view = reader->at("model.layers.0.mlp.up_proj.weight").view;
    EXPECT_EQ(view.encoding, &type);
    EXPECT_EQ(decode(view), decode(tensor.view()));
  }
}

TEST(WrittenFloats, GoWhereTheyFit) {
  const auto held = [](const char* format, const char* type) {
    return hf::holds(*hf::find_format(format), encoding::get(type));
  };
  for (const char* type :
       {"fp8-tensor", "fp8-channel", "fp8-block128x128-bf16", "fp8-block128x128-e5m2", "mxfp8", "mxfp4-hf"})
    EXPECT_FALSE(held("fp8", type)) << type;
  for (const char* type : {"fp8-tensor-e5m2", "fp8-tensor-e8m0", "mxfp8-e5m2", "fp8-block128x128-e8m0"})
    EXPECT_FALSE(held("compressed-tensors", type)) << type;
  for (const char* format : {"gptq", "awq", "bnb"}) EXPECT_FALSE(held(format, "fp8-channel")) << format;
  const hf::Format& packed = *hf::find_format("compressed-tensors");
  EXPECT_EQ(hf::misfit(packed, encoding::get("nvfp4-hf"), {4, 40}), "nvfp4-hf does not fit rows of 40");
  EXPECT_EQ(hf::misfit(packed, encoding::get("mxfp8"), {4, 40}), "groups of 32 do not divide rows of 40");
  EXPECT_THAT(hf::misfit(packed, encoding::get("mxfp8"), {2, 4, 64}), HasSubstr("matrices, not stacks"));
  EXPECT_THAT(hf::types_text(packed), HasSubstr("[-asym], fp8-tensor,fp8-channel,fp8-block{R}x{C},mxfp8,mxfp4,nvfp4"));
}

// --- damaged

void set_f32(RawFolder& folder, std::string_view name, std::size_t index, float value) {
  folder.set_word(name, index, std::bit_cast<std::int32_t>(value));
}

TEST(DamagedFloats, ScalesThatAreNone) {
  const auto with = [](float value) {
    return fault_after("ct_fp8", [&](RawFolder& folder) { set_f32(folder, "blocks.weight_scale", 2, value); });
  };
  EXPECT_THAT(with(-1.5f), HasSubstr("tensor 'blocks.weight_scale', number 2: a scale of -1.5"));
  EXPECT_THAT(with(NAN), HasSubstr("tensor 'blocks.weight_scale', number 2: a scale of nan"));
  EXPECT_THAT(with(INFINITY), HasSubstr("tensor 'blocks.weight_scale', number 2: a scale of inf"));
  EXPECT_THAT(with(0), HasSubstr("number 2: a scale of 0, but not all weights it scales are 0"));
  EXPECT_THAT(fault_after("ct_fp8", [](RawFolder& folder) { folder.set_word("rows.weight_scale", 1, 0x3F80BF80); }),
              HasSubstr("tensor 'rows.weight_scale', number 2: a scale of -1"));
}

TEST(DamagedFloats, AScaleOfZeroHoldsZeros) {
  // Of rows 16.., columns 24..; `other`: a code that is not 0.
  const auto zeros = [](std::byte zero, std::size_t other) {
    RawFolder folder(golden("ct_fp8"));
    set_f32(folder, "blocks.weight_scale", 3, 0);
    std::vector<std::byte>& codes = folder.at("blocks.weight").bytes;
    for (std::size_t r = 16; r < 20; ++r) {
      for (std::size_t c = 24; c < 30; ++c) codes[r * 30 + c] = zero;
    }
    codes[other] = std::byte{1};
    return folder;
  };
  for (const std::byte zero : {std::byte{0}, std::byte{0x80}}) {
    const TempFolder folder;
    zeros(zero, 16 * 30 + 23).write(folder);  // of the tile beside it
    const auto reader = open(folder.path());
    const std::vector<float> values = decode(reader->at("blocks.weight").view);
    EXPECT_EQ(values[19 * 30 + 29], 0);
    EXPECT_NE(values[16 * 30 + 23], 0);
  }
  EXPECT_THAT(zeros(std::byte{0}, 19 * 30 + 29).fault(), HasSubstr("number 3: a scale of 0, but not all"));
}

TEST(DamagedFloats, PartsThatContradictEachOther) {
  const auto after = [](const char* name, auto&& change) { return fault_after(name, change); };
  EXPECT_THAT(after("ct_fp8", [](RawFolder& f) { f.erase("rows.weight_scale"); }),
              HasSubstr("'rows.weight' is in f8_e4m3, but its scales 'rows.weight_scale' are not there"));
  EXPECT_THAT(after("ct_fp8",
                    [](RawFolder& f) {
                      f.reshape("blocks.weight_scale", {2, 3});
                    }),
              HasSubstr("'blocks.weight_scale' of shape (2, 3) holds no scales of 'blocks.weight' of shape (20, 30)"));
  EXPECT_THAT(after("ct_mxfp8",
                    [](RawFolder& f) {
                      f.reshape("a.weight_scale", {12, 4});
                    }),
              HasSubstr("those would be (12, 3)"));
  EXPECT_THAT(after("ct_mxfp4", [](RawFolder& f) { f.erase("a.weight_scale"); }),
              HasSubstr("tensor 'a.weight_packed' is there without 'a.weight_scale'"));
  EXPECT_THAT(after("ct_mxfp4",
                    [](RawFolder& f) {
                      f.reshape("a.weight_scale", {12, 2});
                    }),
              HasSubstr("tensor 'a.weight_scale' is u8 of shape (12, 2), not u8 of shape (12, 3)"));
  EXPECT_THAT(after("ct_mxfp4",
                    [](RawFolder& f) {
                      f.reshape("a.weight_scale", {12, 3}, "f32");
                    }),
              HasSubstr("tensor 'a.weight_scale' is f32 of shape (12, 3), not f8_e8m0 of shape (12, 3)"));
  EXPECT_THAT(after("ct_mxfp4",
                    [](RawFolder& f) {
                      f.reshape("a.weight_packed", {12, 40});
                    }),
              HasSubstr("tensor 'a.weight_packed': rows of 80 elements do not exist in mxfp4-hf"));
  EXPECT_THAT(after("ct_mxfp4", [](RawFolder& f) { f.reshape("a.weight_packed", {576}); }),
              HasSubstr("tensor 'a.weight_packed' is u8 of shape (576), not u8 of two dimensions"));
  EXPECT_THAT(after("ct_mxfp4",
                    [](RawFolder& f) {
                      f.reshape("a.weight_packed", {12, 48}, "i8");
                    }),
              HasSubstr("tensor 'a.weight_packed' is i8"));
  EXPECT_THAT(after("ct_nvfp4", [](RawFolder& f) { f.erase("a.weight_global_scale"); }),
              HasSubstr("tensor 'a.weight_packed' without a global scale is in no group of the config"));
  EXPECT_THAT(after("ct_nvfp4", [](RawFolder& f) { f.reshape("a.weight_global_scale", {2}); }),
              HasSubstr("tensor 'a.weight_global_scale' is f32 of shape (2), not f32 of shape (1)"));
  for (const float none :
       {0.0f, -2.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    EXPECT_THAT(after("ct_nvfp4", [&](RawFolder& f) { set_f32(f, "a.weight_global_scale", 0, none); }),
                HasSubstr("tensor 'a.weight_global_scale': a global scale of"));
  }
}

// Scales of a byte are found out when their rows are used.
TEST(DamagedFloats, ScalesOfAByteThatAreNone) {
  const auto first_bad_row = [](const char* name, int code) {
    RawFolder folder(golden(name));
    folder.at("a.weight_scale").bytes[4] = static_cast<std::byte>(code);
    const TempFolder written;
    folder.write(written);
    const auto reader = open(written.path());
    return encoding::find_not_finite(reader->at("a.weight").view, 0, 12);
  };
  EXPECT_EQ(first_bad_row("ct_mxfp8", 0xFF), 1);
  EXPECT_EQ(first_bad_row("ct_mxfp4", 0xFF), 1);
  EXPECT_EQ(first_bad_row("ct_nvfp4", 0x7F), 0);
  EXPECT_EQ(first_bad_row("ct_nvfp4", 0xB8), 0);  // -1
  EXPECT_EQ(first_bad_row("ct_nvfp4", 0x00), 12);
}

}  // namespace
}  // namespace nibble::container
