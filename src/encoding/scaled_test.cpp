// Scaled floats: names, tiles, decoding, what is not finite, and the way of mxfp4 into GGUF's order.
#include "encoding/scaled.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/rng.h"
#include "encoding/float_code.h"
#include "encoding/repack.h"
#include "tensor/half.h"

namespace nibble::encoding {
namespace {

TEST(ScaledNames, AreInterned) {
  for (const char* grain : {"tensor", "channel", "block128x128", "block1x64", "block16x8"}) {
    for (const char* code : {"", "-e5m2"}) {
      for (const char* scale : {"", "-f16", "-bf16", "-e8m0"}) {
        const std::string name = format_text("fp8-{}{}{}", grain, code, scale);
        const EncodingInfo& info = get(name);
        EXPECT_EQ(info.name, name);
        EXPECT_EQ(info.family, Family::kScaled);
        EXPECT_EQ(find(name), &info);
        EXPECT_EQ(&scaled_encoding(info.scaled), &info);
      }
    }
  }
  for (const char* name : {"mxfp8", "mxfp8-e5m2", "mxfp4-hf", "nvfp4-hf"}) {
    EXPECT_EQ(get(name).name, name);
    EXPECT_EQ(&scaled_encoding(get(name).scaled), &get(name));
  }
  EXPECT_DOUBLE_EQ(get("fp8-block128x128").bits_per_weight, 8 + 32.0 / 16384);
  EXPECT_DOUBLE_EQ(get("fp8-channel").bits_per_weight, 8);
  EXPECT_DOUBLE_EQ(get("mxfp4-hf").bits_per_weight, 4.25);
  EXPECT_DOUBLE_EQ(get("mxfp8").bits_per_weight, 8.25);
  EXPECT_DOUBLE_EQ(get("nvfp4-hf").bits_per_weight, 4.5);
  EXPECT_EQ(get("fp8-tensor-e5m2").dtype, Dtype::kF8E5m2);
}

TEST(ScaledNames, SomeHaveTwo) {
  EXPECT_EQ(&get("fp8-block128"), &get("fp8-block128x128"));
  EXPECT_EQ(&get("fp8-block128-e5m2-bf16"), &get("fp8-block128x128-e5m2-bf16"));
  EXPECT_EQ(&get("fp8-block1x32-e8m0"), &get("mxfp8"));
  EXPECT_EQ(&get("fp8-block1x32-e5m2-e8m0"), &get("mxfp8-e5m2"));
}

TEST(ScaledNames, RefuseNonsense) {
  for (const char* name : {"fp8",
                           "fp8-",
                           "fp8-row",
                           "fp8-block",
                           "fp8-block0",
                           "fp8-block0128",
                           "fp8-block128x",
                           "fp8-block0x128",
                           "fp8-block128x0",
                           "fp8-block-1x1",
                           "fp8-block0128x128",
                           "fp8-block128x128-",
                           "fp8-tensor-f32",
                           "fp8-tensor-f16-f16",
                           "fp8-tensor-f16-e5m2",
                           "fp8-tensor-e4m3",
                           "fp8-tensor ",
                           "FP8-tensor",
                           "fp8-block9999999x1",
                           "fp8-block99999999999999999999x1",
                           "mxfp4-hf-f16",
                           "mxfp4-",
                           "mxfp8-f16",
                           "nvfp4-hf-"}) {
    EXPECT_EQ(find(name), nullptr) << name;
  }
  EXPECT_THROW(scaled_encoding({.tile_rows = 5}), Error);
  EXPECT_THROW(scaled_encoding({.tile_rows = -1, .tile_cols = 2}), Error);
  EXPECT_THROW(scaled_encoding({.scale_dtype = Dtype::kI8}), Error);
  EXPECT_THROW(scaled_encoding({.scale_dtype = Dtype::kF8E4m3}), Error);
  EXPECT_THROW(scaled_encoding({.code = FloatCode::kE2m1, .tile_rows = 1, .tile_cols = 16}), Error);
  EXPECT_THROW(scaled_encoding({.tile_rows = 1, .tile_cols = 16, .global_scale = true}), Error);
}

TEST(FloatCodes, E2m1RoundsToNearestEven) {
  const FloatForm& form = float_form(FloatCode::kE2m1);
  constexpr float kValues[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (int i = 0; i < 8; ++i) {
    const auto code = static_cast<std::uint8_t>(i);
    EXPECT_EQ(form.values[code], kValues[i]);
    EXPECT_EQ(form.nearest(kValues[i]), code);
    EXPECT_EQ(form.nearest(-kValues[i]), code | 8);
    EXPECT_TRUE(std::signbit(form.values[code | 8u]));
    if (i == 7) continue;
    const float middle = (kValues[i] + kValues[i + 1]) / 2;
    EXPECT_EQ(form.nearest(middle), i % 2 == 0 ? i : i + 1) << middle;
    EXPECT_EQ(form.nearest(std::nextafter(middle, 0.0f)), i);
    EXPECT_EQ(form.nearest(std::nextafter(-middle, -9.0f)), (i + 1) | 8);
  }
  for (const float beyond : {6.5f, 1e30f, INFINITY}) EXPECT_EQ(form.nearest(beyond), 7);
  EXPECT_EQ(form.largest, 6);
}

// OCP MX: floor(log2(magnitude)) less the exponent of the largest code.
TEST(ScaleOfMagnitude, OfPowersOfTwoIsThatOfOcp) {
  const auto exponent = [](const char* name, float magnitude) {
    std::byte code{};
    store_float_scale(Dtype::kF8E8m0, scale_of_magnitude(get(name).scaled, magnitude, 1), &code, 0);
    return std::to_integer<int>(code) - 127;
  };
  EXPECT_EQ(exponent("mxfp4-hf", 1.0f), -2);
  EXPECT_EQ(exponent("mxfp4-hf", 7.99f), 0);
  EXPECT_EQ(exponent("mxfp4-hf", 8.0f), 1);
  EXPECT_EQ(exponent("mxfp8", 256.0f), 0);
  EXPECT_EQ(exponent("mxfp8", 511.0f), 0);
  EXPECT_EQ(exponent("mxfp8-e5m2", 1.0f), -15);
  EXPECT_EQ(exponent("mxfp4-hf", 0.0f), 0);  // tiles of zeros: 1
  EXPECT_EQ(exponent("mxfp8-e5m2", std::numeric_limits<float>::denorm_min()), -127);
  EXPECT_EQ(exponent("mxfp4-hf", std::numeric_limits<float>::max()), 125);
}

TEST(ScaleOfMagnitude, OfOthersMakesTheLargestCode) {
  EXPECT_EQ(scale_of_magnitude(get("fp8-tensor").scaled, 896, 1), 2);
  EXPECT_EQ(scale_of_magnitude(get("fp8-tensor-e5m2").scaled, 57344.0f / 4, 1), 0.25f);
  EXPECT_EQ(scale_of_magnitude(get("fp8-tensor-bf16").scaled, 448 * 1.001f, 1), 1);
  EXPECT_EQ(scale_of_magnitude(get("fp8-tensor-f16").scaled, 1e38f, 1), 65504);
  EXPECT_EQ(scale_of_magnitude(get("fp8-tensor").scaled, 0, 1), 1);
  EXPECT_EQ(scale_of_magnitude(get("fp8-tensor-f16").scaled, 1e-9f, 1), 1);  // the type holds none
  const ScaledParams& nvfp4 = get("nvfp4-hf").scaled;
  EXPECT_EQ(global_of_magnitude(nvfp4, 6.0f), 448);
  EXPECT_EQ(scale_of_magnitude(nvfp4, 6.0f, 448), 448);
  EXPECT_EQ(scale_of_magnitude(nvfp4, 1e-9f, 448), 0x1p-9f);  // the least, not 0
  EXPECT_EQ(global_of_magnitude(nvfp4, 0), 1);
  EXPECT_EQ(global_of_magnitude(nvfp4, 1e-40f), 1);
  EXPECT_EQ(global_of_magnitude(get("mxfp8").scaled, 6.0f), 1);
}

TEST(Scaled, RowsBeginWhereTilesDo) {
  const auto offsets = [](const char* name, const Shape& shape, std::int64_t row) {
    Tensor tensor = allocate(get(name), shape);
    const RowParts at = rows_at(tensor, row);
    const TensorView& view = tensor.view();
    std::vector<std::ptrdiff_t> out;
    for (int i = 0; i < view.n_parts; ++i)
      out.push_back(at.parts[static_cast<std::size_t>(i)] - view.parts[static_cast<std::size_t>(i)].bytes.data());
    return out;
  };
  using testing::ElementsAre;
  EXPECT_EQ(row_step(get("fp8-block128x128"), {300, 256}), 128);
  EXPECT_THAT(offsets("fp8-block128x128", {300, 256}, 256), ElementsAre(256 * 256, 4 * 2 * 2));
  EXPECT_EQ(row_step(get("fp8-block128x128"), {100, 256}), 100);
  EXPECT_EQ(row_step(get("fp8-block16x8-bf16"), {3, 32, 20}), 16);
  EXPECT_THAT(offsets("fp8-block16x8-bf16", {3, 32, 20}, 48), ElementsAre(48 * 20, 2 * (3 * 3)));
  EXPECT_EQ(row_step(get("fp8-block16x8"), {3, 17, 20}), 17);  // tiles end with each matrix
  EXPECT_THAT(offsets("fp8-block16x8", {3, 17, 20}, 34), ElementsAre(34 * 20, 4 * (4 * 3)));
  EXPECT_EQ(row_step(get("fp8-tensor"), {3, 17, 20}), 1);
  EXPECT_THAT(offsets("fp8-tensor", {3, 17, 20}, 34), ElementsAre(34 * 20, 0));
  EXPECT_THAT(offsets("fp8-channel", {17, 20}, 5), ElementsAre(100, 20));
  EXPECT_THAT(offsets("nvfp4-hf", {17, 32}, 5), ElementsAre(80, 10, 0));
}

// Random codes that are numbers, and scales that name their place.
Tensor make_fp8(const EncodingInfo& info, const Shape& shape) {
  Tensor tensor = allocate(info, shape);
  std::uint64_t draw = 0;
  for (std::byte& code : tensor.mutable_part(PartRole::kCodes)) {
    do code = static_cast<std::byte>(random_bits(3, 0, draw++));
    while ((code & std::byte{0x7F}) == std::byte{0x7F});
  }
  const std::span<std::byte> scales = tensor.mutable_part(PartRole::kScales);
  const std::size_t size = dtype_bytes(info.scaled.scale_dtype);
  for (std::size_t i = 0; i * size < scales.size(); ++i) {
    const auto value = static_cast<float>(i + 1);
    get(dtype_name(info.scaled.scale_dtype)).encode(&value, scales.data() + i * size, 1);
  }
  return tensor;
}

TEST(Scaled, EachTileHasItsScale) {
  // Matrices of 5 rows and 7 columns, two of them.
  const Shape shape = {2, 5, 7};
  struct Case {
    const char* name;
    std::int64_t rows, cols, tiles_down, tiles_across;
  };
  for (const Case& c : {Case{"fp8-block2x3", 2, 3, 3, 3},
                        {"fp8-block128x128", 128, 128, 1, 1},
                        {"fp8-block1x4-f16", 1, 4, 5, 2},
                        {"fp8-channel-bf16", 1, 7, 5, 1},
                        {"fp8-tensor", 5, 7, 1, 1},
                        {"fp8-block5x7", 5, 7, 1, 1}}) {
    const EncodingInfo& info = get(c.name);
    const Tensor tensor = make_fp8(info, shape);
    const TensorView& view = tensor.view();
    EXPECT_EQ(view.part(PartRole::kScales).shape, Shape({2, c.tiles_down, c.tiles_across})) << c.name;
    EXPECT_EQ(tensor_bytes(info, shape), view.n_bytes());
    validate(view);
    std::vector<float> all(70);
    decode_rows(view, 0, 10, all.data());
    for (std::int64_t row = 0; row < 10; ++row) {
      for (std::int64_t col = 0; col < 7; ++col) {
        const auto at = static_cast<std::size_t>(row * 7 + col);
        const std::int64_t tile = (row / 5 * c.tiles_down + row % 5 / c.rows) * c.tiles_across + col / c.cols;
        const float code = f8_e4m3_to_f32(std::to_integer<std::uint8_t>(view.data()[at]));
        EXPECT_EQ(all[at], code * static_cast<float>(tile + 1)) << c.name << " " << row << " " << col;
      }
    }
    for (std::int64_t begin = 0; begin < 10; ++begin) {
      for (std::int64_t end = begin; end <= 10; ++end) {
        std::vector<float> some(70, -1);
        decode_rows(view, begin, end, some.data());
        EXPECT_EQ(std::memcmp(some.data(), all.data() + begin * 7, static_cast<std::size_t>(end - begin) * 28), 0);
        EXPECT_EQ(some[static_cast<std::size_t>((end - begin) * 7) % 70], begin == 0 && end == 10 ? all[0] : -1);
      }
    }
  }
}

TEST(Scaled, DecodesEveryCode) {
  std::vector<std::byte> codes(256);
  for (std::size_t i = 0; i < 256; ++i) codes[i] = static_cast<std::byte>(i);
  const float one = 1;
  std::vector<float> values(256);
  decode_scaled(get("fp8-tensor").scaled, 256, codes.data(), std::as_bytes(std::span(&one, 1)).data(), 0, 256,
                values.data());
  for (std::size_t i = 0; i < 256; ++i) {
    const float expected = f8_e4m3_to_f32(static_cast<std::uint8_t>(i));
    EXPECT_EQ(std::isnan(values[i]), std::isnan(expected)) << i;
    if (std::isnan(expected)) continue;
    EXPECT_EQ(std::bit_cast<std::uint32_t>(values[i]), std::bit_cast<std::uint32_t>(expected)) << i;
  }
}

TEST(Scaled, FindsWhatIsNotFinite) {
  constexpr float kMax = std::numeric_limits<float>::max();
  Tensor tensor = make_fp8(get("fp8-block2x3"), {6, 7});
  EXPECT_EQ(find_not_finite(tensor.view(), 0, 6), 6);
  const auto codes = tensor.mutable_part(PartRole::kCodes);
  for (const int nan : {0x7F, 0xFF}) {
    for (const std::size_t at : {0u, 20u, 41u}) {
      const std::byte before = std::exchange(codes[at], static_cast<std::byte>(nan));
      EXPECT_EQ(find_not_finite(tensor.view(), 0, 6), static_cast<std::int64_t>(at / 7));
      codes[at] = before;
    }
  }
  const auto set_scale = [&](float value) {
    std::memcpy(tensor.mutable_part(PartRole::kScales).data() + 4 * 4, &value, 4);
  };
  for (const float value : {INFINITY, -INFINITY, NAN}) {  // the middle tile of rows 2 and 3
    set_scale(value);
    EXPECT_EQ(find_not_finite(tensor.view(), 0, 6), 2);
    EXPECT_EQ(find_not_finite(tensor.view(), 3, 6), 3);
    EXPECT_EQ(find_not_finite(tensor.view(), 4, 6), 6);
  }
  // A scale that is too large for some codes only.
  set_scale(kMax / 2);
  for (int i = 14; i < 28; ++i) codes[static_cast<std::size_t>(i)] = std::byte{0x40};  // 2
  EXPECT_EQ(find_not_finite(tensor.view(), 0, 6), 6);
  codes[3 * 7 + 5] = std::byte{0x48};  // 4
  EXPECT_EQ(find_not_finite(tensor.view(), 0, 6), 3);

  Tensor mxfp4 = allocate(get("mxfp4-hf"), {2, 64});
  std::memset(mxfp4.mutable_part(PartRole::kCodes).data(), 0x77, 64);
  std::memset(mxfp4.mutable_part(PartRole::kScales).data(), 252, 4);
  EXPECT_EQ(find_not_finite(mxfp4.view(), 0, 2), 2);
  for (const int scale : {253, 254, 255}) {
    mxfp4.mutable_part(PartRole::kScales)[3] = static_cast<std::byte>(scale);
    EXPECT_EQ(find_not_finite(mxfp4.view(), 0, 2), 1) << scale;
  }
  std::memset(mxfp4.mutable_part(PartRole::kCodes).data(), 0x22, 64);  // 1 holds beside 2^127
  mxfp4.mutable_part(PartRole::kScales)[3] = std::byte{254};
  EXPECT_EQ(find_not_finite(mxfp4.view(), 0, 2), 2);
}

TEST(Nvfp4, DividesItsScalesByTheGlobalOne) {
  Tensor tensor = allocate(get("nvfp4-hf"), {2, 2, 32});
  const auto codes = tensor.mutable_part(PartRole::kCodes);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = std::byte{0xF3};  // 1.5, -6
  const auto scales = tensor.mutable_part(PartRole::kScales);
  for (std::size_t i = 0; i < 8; ++i) scales[i] = static_cast<std::byte>(0x38 + 8 * i);  // 1, 2, 4, ..
  const float globals[] = {3, 5};
  std::memcpy(tensor.mutable_part(PartRole::kGlobalScale).data(), globals, 8);
  validate(tensor.view());
  std::vector<float> values(128);
  decode_rows(tensor.view(), 0, 4, values.data());
  for (std::size_t i = 0; i < 128; ++i) {
    const float scale = static_cast<float>(1 << i / 16) / globals[i / 64];
    EXPECT_EQ(values[i], (i % 2 == 0 ? 1.5f : -6.0f) * scale);
  }
  EXPECT_EQ(find_not_finite(tensor.view(), 0, 4), 4);
  for (const int none : {0x7F, 0xFF, 0x80, 0xB8}) {  // NaN, and scales below 0
    scales[3] = static_cast<std::byte>(none);
    EXPECT_EQ(find_not_finite(tensor.view(), 0, 4), 1) << none;
  }
  scales[3] = std::byte{0};  // a tile of zeros
  EXPECT_EQ(find_not_finite(tensor.view(), 0, 4), 4);
}

TEST(Scaled, FindsWhatIsNotFiniteInE5m2) {
  Tensor tensor = make_fp8(get("fp8-channel-e5m2"), {4, 7});
  const auto codes = tensor.mutable_part(PartRole::kCodes);
  for (std::byte& code : codes) code &= std::byte{0x83};
  EXPECT_EQ(find_not_finite(tensor.view(), 0, 4), 4);
  for (int code = 0x7C; code < 0x100; code += code == 0x7F ? 0x7D : 1) {  // infinity, NaN, of either sign
    codes[15] = static_cast<std::byte>(code);
    EXPECT_EQ(find_not_finite(tensor.view(), 0, 4), 2) << code;
  }
}

TEST(Scaled, RefusesOtherParts) {
  const Tensor whole = make_fp8(get("fp8-block2x3"), {6, 7});
  const auto refused = [](TensorView view) {
    try {
      validate(view);
    } catch (const Error&) {
      return true;
    }
    return false;
  };
  TensorView view = whole.view();
  EXPECT_FALSE(refused(view));
  view.parts[1].bytes = view.parts[1].bytes.first(32);
  EXPECT_TRUE(refused(view));
  view = whole.view();
  view.parts[0].bytes = view.parts[0].bytes.first(41);
  EXPECT_TRUE(refused(view));
  view = whole.view();
  view.parts[1].dtype = Dtype::kF16;
  EXPECT_TRUE(refused(view));
  view = whole.view();
  view.n_parts = 1;
  EXPECT_TRUE(refused(view));
  view = whole.view();
  view.encoding = &get("fp8-channel");
  EXPECT_TRUE(refused(view));
  view.encoding = &get("mxfp4-hf");  // no rows of 7
  EXPECT_TRUE(refused(view));
}

// The same values in both orders, for every code and every scale.
TEST(Mxfp4, RepacksIntoTheBlocksOfGguf) {
  const EncodingInfo& hf = get("mxfp4-hf");
  const EncodingInfo& gguf = get("mxfp4");
  EXPECT_TRUE(repacks(hf, gguf));
  EXPECT_FALSE(repacks(gguf, hf));
  EXPECT_FALSE(repacks(hf, hf));
  EXPECT_FALSE(repacks(get("fp8-tensor"), gguf));
  EXPECT_FALSE(repacks(get("nvfp4-hf"), gguf));
  EXPECT_FALSE(repacks(hf, get("q4_0")));
  Tensor tensor = allocate(hf, {253, 96});
  std::uint64_t draw = 0;
  for (std::byte& code : tensor.mutable_part(PartRole::kCodes))
    code = static_cast<std::byte>(random_bits(4, 0, draw++));
  const auto scales = tensor.mutable_part(PartRole::kScales);
  for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<std::byte>(i / 3);  // 0 .. 252
  std::vector<float> values(96), repacked(96);
  std::vector<std::byte> blocks(3 * 17);
  for (std::int64_t row = 0; row < 253; ++row) {
    decode_rows(tensor.view(), row, row + 1, values.data());
    repack_row(tensor.view(), row, blocks.data());
    gguf.decode(blocks.data(), repacked.data(), 96);
    EXPECT_EQ(values, repacked) << row;  // as numbers: the code of -0 is 0 there
    // And back to the same bytes.
    const TensorView block = make_view(gguf, {1, 96}, blocks);
    EXPECT_EQ(repacking(block, hf), Repacking::kExact);
    Tensor back = allocate(hf, {1, 96});
    repack_row(block, 0, hf, rows_at(back, 0));
    EXPECT_EQ(std::memcmp(back.view().data().data(), tensor.view().data().data() + row * 48, 48), 0);
    EXPECT_EQ(std::memcmp(back.view().part(PartRole::kScales).bytes.data(), scales.data() + row * 3, 3), 0);
  }
}

TEST(Mxfp4, HasColumnsInPairs) {
  Tensor tensor = allocate(get("mxfp4-hf"), {1, 32});
  const auto codes = tensor.mutable_part(PartRole::kCodes);
  for (int i = 0; i < 16; ++i) codes[static_cast<std::size_t>(i)] = static_cast<std::byte>(i | (15 - i) << 4);
  tensor.mutable_part(PartRole::kScales)[0] = std::byte{128};
  std::vector<float> values(32);
  decode_rows(tensor.view(), 0, 1, values.data());
  const float expected[] = {0, 1, 2, 3, 4, 6, 8, 12};  // twice E2M1
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(values[static_cast<std::size_t>(2 * i)], expected[i]);
    EXPECT_EQ(values[static_cast<std::size_t>(2 * i + 1)], -expected[7 - i]);
    EXPECT_EQ(values[static_cast<std::size_t>(16 + 2 * i)], -expected[i]);
    EXPECT_EQ(values[static_cast<std::size_t>(16 + 2 * i + 1)], expected[7 - i]);
  }
}

}  // namespace
}  // namespace nibble::encoding
