// Codes and scales of a panel in AVX-512 registers, a lane a row; for files of that instruction set.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernel/panel_avx512.h"
#include "kernel/scaled/panel.h"

namespace nibble::kernel::scaled {

// Of the including file alone: files for AVX-512 and for AMX are compiled with different instructions.
namespace {

// The bytes of the bf16 of every magnitude of 7 bits.
template <Form kForm>
struct MagnitudeBytes {
  constexpr MagnitudeBytes() {
    for (int i = 0; i < 128; ++i) {
      high[i] = static_cast<uint8_t>(bf16_of(kForm, i) >> 8);
      low[i] = static_cast<uint8_t>(bf16_of(kForm, i) & 255);
    }
  }
  alignas(64) uint8_t high[128] = {};
  alignas(64) uint8_t low[128] = {};
};

// Codes of 8 bits: both bytes of a bf16 are looked up, 64 at a time.
template <Form kForm>
class Decoder {
 public:
  // Columns 4v..4v+3 of a half: its codes are at `codes`, and begin at bit `bit`.
  inline void columns(const uint8_t* codes, int v, int /*bit*/, __m512 (&w)[4]) const {
    const __m512i code = load_codes(codes + v * 64);
    const __m512i magnitude = _mm512_permutex2var_epi8(high_[0], code, high_[1]);
    const __m512i high = _mm512_ternarylogic_epi32(magnitude, code, _mm512_set1_epi8(-128), 0xF8);  // a | (b & c)
    const __m512i low = _mm512_permutex2var_epi8(low_[0], code, low_[1]);
    const __m512i even = _mm512_ternarylogic_epi32(_mm512_slli_epi16(high, 8), low, _mm512_set1_epi16(0x00FF), 0xF8);
    const __m512i odd =
        _mm512_ternarylogic_epi32(_mm512_srli_epi16(low, 8), high, _mm512_set1_epi16(static_cast<short>(0xFF00)), 0xF8);
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
    w[0] = _mm512_castsi512_ps(_mm512_slli_epi32(even, 16));
    w[1] = _mm512_castsi512_ps(_mm512_slli_epi32(odd, 16));
    w[2] = _mm512_castsi512_ps(_mm512_and_si512(even, upper));
    w[3] = _mm512_castsi512_ps(_mm512_and_si512(odd, upper));
  }

 private:
  static constexpr MagnitudeBytes<kForm> kBytes{};
  __m512i high_[2] = {load_codes(kBytes.high), load_codes(kBytes.high + 64)};
  __m512i low_[2] = {load_codes(kBytes.low), load_codes(kBytes.low + 64)};
};

// The f32 of every code of 4 bits.
struct Values {
  constexpr Values() {
    for (int i = 0; i < 16; ++i) bits[i] = static_cast<uint32_t>(bf16_of(kE2m1, i)) << 16;
  }
  alignas(64) uint32_t bits[16] = {};
};

// Codes of 4 bits: the values are looked up, 16 at a time.
template <>
class Decoder<kE2m1> {
 public:
  inline void columns(const uint8_t* codes, int v, int bit, __m512 (&w)[4]) const {
    const __m512i code = _mm512_srlv_epi32(load_codes(codes + v * 64), _mm512_set1_epi32(bit));
    w[0] = _mm512_permutexvar_ps(code, values_);
    w[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(code, 8), values_);
    w[2] = _mm512_permutexvar_ps(_mm512_srli_epi32(code, 16), values_);
    w[3] = _mm512_permutexvar_ps(_mm512_srli_epi32(code, 24), values_);
  }

 private:
  static constexpr Values kValues{};
  __m512 values_ = _mm512_castsi512_ps(load_codes(kValues.bits));
};

// Of one group.
inline __m512 load_scale(ScaleType type, const uint8_t* panel, int64_t group) {
  const int64_t index = group * kPanelRows;
  if (type == ScaleType::kF32) return _mm512_loadu_ps(panel + index * 4);
  if (type == ScaleType::kF16) return load_f16(panel + index * 2);
  if (type == ScaleType::kBf16) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + index * 2));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(panel + index));
  if (type == ScaleType::kE8m0) {  // 0 is 2^-127, a number without its leading bit
    const __m512i exponents = _mm512_slli_epi32(_mm512_cvtepu8_epi32(bytes), 23);
    return _mm512_castsi512_ps(_mm512_max_epi32(exponents, _mm512_set1_epi32(1 << 22)));
  }
  // E4M3 without a sign, as f16: its exponent is 8 less there.
  const __m256i halves = _mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 7);
  return _mm512_mul_ps(_mm512_cvtph_ps(halves), _mm512_set1_ps(256));
}

}  // namespace

}  // namespace nibble::kernel::scaled
