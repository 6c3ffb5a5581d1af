// The small floating-point formats, one value at a time, and whole arrays fast.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/dtype.h"

namespace nibble {

// IEEE binary16, round to nearest even; overflow gives infinity, NaN stays NaN.
inline float f16_to_f32(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
  const std::uint32_t exponent = (h >> 10) & 0x1Fu;
  const std::uint32_t mantissa = h & 0x3FFu;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000u | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal: exact
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

inline std::uint16_t f32_to_f16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<std::uint16_t>(sign | 0x7E00u | (magnitude >> 13 & 0x3FFu));
  if (magnitude >= 0x477FF000u) return static_cast<std::uint16_t>(sign | 0x7C00u);
  if (magnitude < 0x38800000u) {  // subnormal or zero: adding 0.5 leaves the rounded result in the low bits
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3F000000u));
  }
  const std::uint32_t rounded = magnitude + 0xFFFu + (magnitude >> 13 & 1u);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

inline float bf16_to_f32(std::uint16_t b) { return std::bit_cast<float>(static_cast<std::uint32_t>(b) << 16); }

// Round to nearest even; NaN stays NaN.
inline std::uint16_t f32_to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

// OCP FP8 (OFP8 1.0). E4M3 ("fn"): bias 7, no infinity, 0x7F and 0xFF are NaN, largest 448. E5M2: bias 15, as IEEE:
// infinity 0x7C, NaN 0x7D..0x7F, largest 57344.
float f8_e4m3_to_f32(std::uint8_t code);
float f8_e5m2_to_f32(std::uint8_t code);

// What becomes of a magnitude that rounds to more than the largest, infinity too. kSaturate: the largest. kSpecial: NaN
// in E4M3, infinity in E5M2 (as ml_dtypes and PyTorch convert).
enum class Fp8Overflow : std::uint8_t { kSaturate, kSpecial };

// The magnitude of a small float with `M` mantissa bits and bias `B` nearest to the f32 with bits `magnitude`, no NaN,
// ties to even. Codes are consecutive and go on behind the largest.
template <int M, int B>
std::uint32_t nearest_small_float(std::uint32_t magnitude) {
  constexpr int kDropped = 23 - M;
  constexpr std::uint32_t kLeastNormal = (128u - B) << 23;  // 2^(1 - B)
  if (magnitude < kLeastNormal) {  // adding this power of two leaves the rounded number of steps in the low bits
    constexpr std::uint32_t kPower = (128u - B + kDropped) << 23;
    return std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + std::bit_cast<float>(kPower)) - kPower;
  }
  const std::uint32_t rounded = magnitude + ((1u << (kDropped - 1)) - 1) + (magnitude >> kDropped & 1u);
  return (rounded - ((127u - B) << 23)) >> kDropped;
}

// Round to nearest even; subnormals too. NaN keeps its sign: 0x7F of E4M3, 0x7E of E5M2.
inline std::uint8_t f32_to_f8_e4m3(float value, Fp8Overflow overflow = Fp8Overflow::kSaturate) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value), sign = bits >> 24 & 0x80u, all = bits & 0x7FFFFFFFu;
  if (all > 0x7F800000u) return static_cast<std::uint8_t>(sign | 0x7Fu);
  const std::uint32_t code = nearest_small_float<3, 7>(all);
  return static_cast<std::uint8_t>(sign | (code < 0x7Fu ? code : overflow == Fp8Overflow::kSaturate ? 0x7Eu : 0x7Fu));
}
inline std::uint8_t f32_to_f8_e5m2(float value, Fp8Overflow overflow = Fp8Overflow::kSaturate) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value), sign = bits >> 24 & 0x80u, all = bits & 0x7FFFFFFFu;
  if (all > 0x7F800000u) return static_cast<std::uint8_t>(sign | 0x7Eu);
  const std::uint32_t code = nearest_small_float<2, 15>(all);
  return static_cast<std::uint8_t>(sign | (code < 0x7Cu ? code : overflow == Fp8Overflow::kSaturate ? 0x7Bu : 0x7Cu));
}

// OCP E8M0 scale: 2^(code - 127); 0xFF is NaN.
inline float e8m0_to_f32(std::uint8_t code) {
  if (code == 0xFF) return std::bit_cast<float>(0x7FC00000u);
  if (code == 0) return 0x1p-127f;
  return std::bit_cast<float>(static_cast<std::uint32_t>(code) << 23);
}

// Arrays, by the best instructions of the machine; every path gives the same bits as the functions above.
void convert_f16_to_f32(const std::byte* src, float* dst, std::int64_t n) noexcept;
void convert_bf16_to_f32(const std::byte* src, float* dst, std::int64_t n) noexcept;
void convert_f32_to_f16(const float* src, std::byte* dst, std::int64_t n) noexcept;
void convert_f32_to_bf16(const float* src, std::byte* dst, std::int64_t n) noexcept;

}  // namespace nibble
