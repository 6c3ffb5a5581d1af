// Codes and scales of half a panel in AVX2 registers, a lane a row; for files of that instruction set.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernel/panel_avx2.h"
#include "kernel/scaled/panel.h"

namespace nibble::kernel::scaled {

constexpr int kHalves = 2;  // of a panel

// What makes the bytes of the bf16 of a code. Of 8 bits: a magnitude moved to its place plus what is missing, looked
// up: the difference of exponents and, for those without a leading bit (all below 15), what else differs. Of 4 bits:
// the bytes of each code.
template <Form kForm>
struct ByteTables {
  static constexpr int kShift = 7 - kFloatBits[kForm].mantissa;  // of a magnitude, in a bf16
  constexpr ByteTables() {
    for (int i = 0; i < 16; ++i) {
      const int moved = kFloatBits[kForm].bits == 8 ? i << kShift : 0, value = bf16_of(kForm, i);
      high[i] = high[i + 16] = static_cast<uint8_t>((value >> 8) - (moved >> 8));
      low[i] = low[i + 16] = static_cast<uint8_t>(value - moved);
    }
  }
  alignas(32) uint8_t high[32] = {};
  alignas(32) uint8_t low[32] = {};
};

template <Form kForm>
class Decoder {
 public:
  // Columns 4v..4v+3 of a half for rows 8h..8h+7: its codes are at `codes`, and begin at bit `bit`.
  [[gnu::always_inline]] inline void columns(const uint8_t* codes, int v, int h, int bit, __m256 (&w)[4]) const {
    const __m256i code = load(codes + v * 64 + h * 32);
    __m256i high, low;
    if constexpr (kFloatBits[kForm].bits == 8) {
      look_up(code, high, low);
    } else {
      const __m256i nibble = _mm256_and_si256(_mm256_srl_epi16(code, _mm_cvtsi32_si128(bit)), _mm256_set1_epi8(15));
      high = _mm256_shuffle_epi8(high_, nibble);
      low = _mm256_shuffle_epi8(low_, nibble);
    }
    const __m256i first = _mm256_set1_epi16(0x00FF), upper = _mm256_set1_epi32(static_cast<int>(0xFFFF0000));
    const __m256i even = _mm256_or_si256(_mm256_slli_epi16(high, 8), _mm256_and_si256(low, first));
    const __m256i odd = _mm256_or_si256(_mm256_andnot_si256(first, high), _mm256_srli_epi16(low, 8));
    w[0] = _mm256_castsi256_ps(_mm256_slli_epi32(even, 16));
    w[1] = _mm256_castsi256_ps(_mm256_slli_epi32(odd, 16));
    w[2] = _mm256_castsi256_ps(_mm256_and_si256(even, upper));
    w[3] = _mm256_castsi256_ps(_mm256_and_si256(odd, upper));
  }

 private:
  using Bytes = ByteTables<kForm>;

  [[gnu::always_inline]] inline void look_up(__m256i code, __m256i& high, __m256i& low) const {
    constexpr int kShift = Bytes::kShift;
    const __m256i magnitude = _mm256_and_si256(code, _mm256_set1_epi8(0x7F));
    const __m256i index = _mm256_min_epu8(magnitude, _mm256_set1_epi8(15));
    const __m256i moved_high =
        _mm256_and_si256(_mm256_srli_epi16(magnitude, 8 - kShift), _mm256_set1_epi8(0x7F >> (8 - kShift)));
    const __m256i moved_low =
        _mm256_and_si256(_mm256_slli_epi16(magnitude, kShift), _mm256_set1_epi8(static_cast<char>(0xFF << kShift)));
    low = _mm256_add_epi8(moved_low, _mm256_shuffle_epi8(low_, index));
    high = _mm256_add_epi8(moved_high, _mm256_shuffle_epi8(high_, index));
    high = _mm256_or_si256(high, _mm256_and_si256(code, _mm256_set1_epi8(-128)));
  }

  static constexpr Bytes kBytes{};
  __m256i high_ = load(kBytes.high);
  __m256i low_ = load(kBytes.low);
};

// Of half a panel in one group.
inline __m256 load_scale(ScaleType type, const uint8_t* panel, int64_t group, int half) {
  const int64_t index = group * kPanelRows + half * kHalfRows;
  if (type == ScaleType::kF32) return _mm256_loadu_ps(reinterpret_cast<const float*>(panel) + index);
  if (type == ScaleType::kF16) return load_f16(panel + index * 2);
  if (type == ScaleType::kBf16) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(panel + index * 2));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(panel + index));
  if (type == ScaleType::kE8m0) {  // 0 is 2^-127, a number without its leading bit
    const __m256i exponents = _mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 23);
    return _mm256_castsi256_ps(_mm256_max_epi32(exponents, _mm256_set1_epi32(1 << 22)));
  }
  // E4M3 without a sign, as f16: its exponent is 8 less there.
  return _mm256_mul_ps(_mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(bytes), 7)), _mm256_set1_ps(256));
}

}  // namespace nibble::kernel::scaled
