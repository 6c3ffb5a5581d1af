// What the IQ1, IQ2 and IQ3 decoders share: grids of points with few levels, and sign patterns.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace nibble::encoding {

// Points of kDims coordinates from their packed form: kBits of a u16 a coordinate, an index into `levels`.
template <int kDims, int kBits, std::size_t kPoints, typename Level, std::size_t kLevels>
constexpr auto expand_grid(const std::uint16_t (&packed)[kPoints], const Level (&levels)[kLevels]) {
  std::array<std::array<Level, kDims>, kPoints> grid{};
  for (std::size_t i = 0; i < kPoints; ++i) {
    for (std::size_t j = 0; j < kDims; ++j) grid[i][j] = levels[packed[i] >> (j * kBits) & ((1u << kBits) - 1)];
  }
  return grid;
}

// Seven stored signs and the eighth that makes the number of minus signs even.
inline unsigned even_signs(unsigned seven) { return seven | static_cast<unsigned>(std::popcount(seven) & 1) << 7; }

// dst[j] = scale * point[j], negative where bit j of `signs` is set.
template <std::size_t kDims>
void put_signed(const std::array<std::uint8_t, kDims>& point, float scale, unsigned signs, float* dst) {
  for (std::size_t j = 0; j < kDims; ++j) {
    const float value = scale * static_cast<float>(point[j]);
    dst[j] = (signs >> j & 1) != 0 ? -value : value;
  }
}

}  // namespace nibble::encoding
