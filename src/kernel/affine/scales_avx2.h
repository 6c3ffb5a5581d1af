// Codes, scales and zeros of a panel in AVX2 registers, half of it in each; for files of that instruction set.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernel/affine/panel.h"
#include "kernel/panel_avx2.h"

namespace nibble::kernel::affine {

constexpr int kHalves = 2;

template <int kP>
constexpr bool kSigned = bits_of(kPlanes[kP]) == 8;
template <int kP>
constexpr Products kProducts = products_of(bits_of(kPlanes[kP]), kSigned<kP>, kGroups);

template <int kP, int kG>
inline __m256i group(const uint8_t* block) {
  const __m256i code = code_group<kPlanes[kP].low_bits, kPlanes[kP].high_bits, kG>(block);
  return kSigned<kP> ? _mm256_xor_si256(code, _mm256_set1_epi8(static_cast<char>(0x80))) : code;
}

// The codes of half a block: unsigned, or less 128.
template <int kP>
inline void unpack(const uint8_t* block, __m256i (&w)[kGroups]) {
  w[0] = group<kP, 0>(block);
  w[1] = group<kP, 1>(block);
  w[2] = group<kP, 2>(block);
  w[3] = group<kP, 3>(block);
  w[4] = group<kP, 4>(block);
  w[5] = group<kP, 5>(block);
  w[6] = group<kP, 6>(block);
  w[7] = group<kP, 7>(block);
}

// Scales of half a panel in one group.
inline __m256 load_scale(const PanelWeights& weights, const uint8_t* panel, int64_t group, int half) {
  const int64_t index = group * kPanelRows + half * kHalfRows;
  switch (weights.scale_type) {
    case ScaleType::kF16:
      return load_f16(panel + index * 2);
    case ScaleType::kBf16: {
      const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(panel + index * 2));
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    }
    default:
      return _mm256_loadu_ps(reinterpret_cast<const float*>(panel) + index);
  }
}

// What each 16-bit sum of activations is multiplied by: less the zero, twice in a lane.
template <int kP>
inline __m256i load_zero(const PanelWeights& weights, const uint8_t* panel, int64_t group, int half) {
  const __m256i bias = _mm256_set1_epi16(kSigned<kP> ? 128 : 0);
  if (weights.zero >= 0) return _mm256_sub_epi16(bias, _mm256_set1_epi16(static_cast<int16_t>(weights.zero)));
  const uint8_t* zeros = panel + weights.geometry.zeros_at + group * kPanelRows + half * kHalfRows;
  const __m256i zero = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(zeros)));
  return _mm256_sub_epi16(bias, _mm256_or_si256(zero, _mm256_slli_epi32(zero, 16)));
}

}  // namespace nibble::kernel::affine
