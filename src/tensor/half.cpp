#include "tensor/half.h"

#include <cmath>
#include <cstring>

#include "base/cpu.h"
#include "tensor/half_isa.h"

namespace nibble {

namespace {

// A small float with `M` mantissa bits and exponent bias `B`; the special codes are handled by the callers.
template <int M, int B>
float decode_small(std::uint8_t code) {
  const float sign = code & 0x80 ? -1.0f : 1.0f;
  const int exponent = (code & 0x7F) >> M;
  const int mantissa = code & ((1 << M) - 1);
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), 1 - B - M);
  return sign * std::ldexp(static_cast<float>(mantissa | 1 << M), exponent - B - M);
}

struct Converters {
  void (*f16_to_f32)(const unsigned char*, float*, std::int64_t) noexcept;
  void (*f32_to_f16)(const float*, unsigned char*, std::int64_t) noexcept;
};

void f16_to_f32_scalar(const unsigned char* src, float* dst, std::int64_t n) noexcept {
  for (std::int64_t i = 0; i < n; ++i) {
    std::uint16_t half;
    std::memcpy(&half, src + 2 * i, 2);
    dst[i] = f16_to_f32(half);
  }
}
void f32_to_f16_scalar(const float* src, unsigned char* dst, std::int64_t n) noexcept {
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint16_t half = f32_to_f16(src[i]);
    std::memcpy(dst + 2 * i, &half, 2);
  }
}

// Chosen by the machine alone: the bits do not depend on the path, so NIBBLE_ISA need not reach here.
const Converters& converters() {
  static const Converters chosen = machine_isa() >= Isa::kAvx2 ? Converters{f16_to_f32_avx2, f32_to_f16_avx2}
                                                               : Converters{f16_to_f32_scalar, f32_to_f16_scalar};
  return chosen;
}

}  // namespace

float f8_e4m3_to_f32(std::uint8_t code) {
  if ((code & 0x7F) == 0x7F) return std::bit_cast<float>(0x7FC00000u);
  return decode_small<3, 7>(code);
}

float f8_e5m2_to_f32(std::uint8_t code) { return f16_to_f32(static_cast<std::uint16_t>(code << 8)); }

void convert_f16_to_f32(const std::byte* src, float* dst, std::int64_t n) noexcept {
  converters().f16_to_f32(reinterpret_cast<const unsigned char*>(src), dst, n);
}

void convert_f32_to_f16(const float* src, std::byte* dst, std::int64_t n) noexcept {
  converters().f32_to_f16(src, reinterpret_cast<unsigned char*>(dst), n);
}

void convert_bf16_to_f32(const std::byte* src, float* dst, std::int64_t n) noexcept {
  for (std::int64_t i = 0; i < n; ++i) {
    std::uint16_t b;
    std::memcpy(&b, src + 2 * i, 2);
    dst[i] = bf16_to_f32(b);
  }
}

void convert_f32_to_bf16(const float* src, std::byte* dst, std::int64_t n) noexcept {
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint16_t b = f32_to_bf16(src[i]);
    std::memcpy(dst + 2 * i, &b, 2);
  }
}

}  // namespace nibble
