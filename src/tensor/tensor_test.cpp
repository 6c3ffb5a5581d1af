#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "tensor/half.h"

namespace nibble {
namespace {

TEST(Half, EveryF16RoundTrips) {
  std::vector<std::uint16_t> codes(65536);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint16_t>(i);
  std::vector<float> values(codes.size());
  convert_f16_to_f32(reinterpret_cast<const std::byte*>(codes.data()), values.data(), 65536);
  std::vector<std::uint16_t> back(codes.size());
  convert_f32_to_f16(values.data(), reinterpret_cast<std::byte*>(back.data()), 65536);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const float value = f16_to_f32(codes[i]);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(values[i]));
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value))));
    } else {
      EXPECT_EQ(value, values[i]);
      EXPECT_EQ(f32_to_f16(value), codes[i]);
      EXPECT_EQ(back[i], codes[i]);
    }
  }
}

TEST(Half, F16RoundsToNearestEven) {
  EXPECT_EQ(f32_to_f16(1.0f + 0x1p-11f), 0x3C00);  // tie to even: down
  EXPECT_EQ(f32_to_f16(1.0f + 0x1p-11f + 0x1p-20f), 0x3C01);
  EXPECT_EQ(f32_to_f16(1.0f + 3 * 0x1p-11f), 0x3C02);  // tie to even: up
  EXPECT_EQ(f32_to_f16(65519.0f), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7C00);
  EXPECT_EQ(f32_to_f16(0x1p-25f), 0x0000);
  EXPECT_EQ(f32_to_f16(0x1.8p-25f), 0x0001);
  EXPECT_EQ(f32_to_f16(-0.0f), 0x8000);
}

TEST(Half, Bf16) {
  EXPECT_EQ(f32_to_bf16(1.0f + 0x1p-8f), 0x3F80);
  EXPECT_EQ(f32_to_bf16(1.0f + 3 * 0x1p-8f), 0x3F82);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(NAN))));
}

TEST(Dtype, Names) {
  EXPECT_EQ(parse_dtype("BF16"), Dtype::kBf16);
  EXPECT_EQ(parse_dtype("F8_E4M3"), Dtype::kF8E4m3);
  EXPECT_FALSE(parse_dtype("f12"));
  EXPECT_EQ(dtype_bytes(Dtype::kI64), 8u);
}

TEST(Shape, RowsAndOverflow) {
  const Shape shape{8, 4, 256};
  EXPECT_EQ(shape.rows(), 32);
  EXPECT_EQ(shape.cols(), 256);
  EXPECT_EQ(shape.to_string(), "(8, 4, 256)");
  EXPECT_THROW((Shape{std::int64_t{1} << 40, std::int64_t{1} << 40}), Error);
  EXPECT_THROW((Shape{-1}), Error);
}

}  // namespace
}  // namespace nibble
