// Scales and zeros of a panel in AVX-512 registers; for files of that instruction set.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernel/affine/panel.h"
#include "kernel/panel_avx512.h"

namespace nibble::kernel::affine {

// Of the including file alone: files for AVX-512 and for AMX are compiled with different instructions.
namespace {

// A lane a row, of one group.
inline __m512 load_scale(ScaleType type, const uint8_t* panel, int64_t group) {
  const int64_t index = group * kPanelRows;
  if (type == ScaleType::kF32) return _mm512_loadu_ps(panel + index * 4);
  if (type == ScaleType::kF16) return load_f16(panel + index * 2);
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + index * 2));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// `zero` if all share one, else (below 0) those of the group.
inline __m512i load_zero(int zero, const uint8_t* zeros, int64_t group) {
  if (zero >= 0) return _mm512_set1_epi32(zero);
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(zeros + group * kPanelRows)));
}

}  // namespace

}  // namespace nibble::kernel::affine
