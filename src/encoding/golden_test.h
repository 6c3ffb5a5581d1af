// Data and hashes that the tests share with dev/golden/encodings.py.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "base/rng.h"

namespace nibble::encoding {

// FNV-1a over 32-bit words.
struct Hash {
  std::uint64_t value = 0xCBF29CE484222325u;
  void add(std::uint32_t word) { value = (value ^ word) * 0x100000001B3u; }
};

// Signed cubes: most near zero, a few large, with another scale every 512 values.
inline std::vector<float> hashed_values(std::size_t n) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) {
    const float u = static_cast<float>(random_bits(11, 0, i) >> 40) * 0x1p-23f - 1.0f;
    values[i] = u * u * u * std::exp2(static_cast<float>(random_bits(11, 1, i / 512) % 24) - 16.0f);
  }
  return values;
}

}  // namespace nibble::encoding
