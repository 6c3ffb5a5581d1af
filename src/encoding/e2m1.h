// MXFP4 (OCP MX) in whole numbers: codes of the 4-bit float E2M1 as levels twice their values, and scales of half
// 2^(code
// - 127). A weight is level * half_e8m0(scale).
#pragma once

#include <bit>
#include <cstdint>

namespace nibble::encoding {

inline constexpr std::int8_t kE2m1Doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// As in GGML, the code of NaN (255) gives 2^127.
inline float half_e8m0(std::uint8_t code) {
  const std::uint32_t bits = code < 2 ? 0x00200000u << code : static_cast<std::uint32_t>(code - 1) << 23;
  return std::bit_cast<float>(bits);
}

}  // namespace nibble::encoding
