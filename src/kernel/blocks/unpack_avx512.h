// Weights of the block encodings in AVX-512 registers; for files of that instruction set.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernel/blocks/panel.h"
#include "kernel/panel_avx512.h"

namespace nibble::kernel::blocks {

// Of the including file alone: files for AVX-512 and for AMX are compiled with different instructions.
namespace {

// The levels + offset of a block.
template <int kFormat>
inline void unpack(const uint8_t* block, __m512i levels, __m512i (&w)[kGroups]) {
  constexpr Format kF = kFormats[kFormat];
  unpack_codes<kF.low_bits, kF.high_bits>(block, w);
  if constexpr (kF.table) {
    for (__m512i& codes : w) codes = _mm512_shuffle_epi8(levels, codes);
  }
}

// Half of 2^(code - 127), as encoding/e2m1.h has it; below 255.
inline __m512 half_e8m0(__m128i codes) {
  const __m512i power = _mm512_slli_epi32(_mm512_cvtepu8_epi32(codes), 23);
  return _mm512_mul_ps(_mm512_castsi512_ps(_mm512_max_epi32(power, _mm512_set1_epi32(0x00400000))),
                       _mm512_set1_ps(0.5f));
}

// The scales of a super-block that all its blocks share.
struct Super {
  __m512 d;
  __m512 dmin;
};
template <int kFormat>
inline Super load_super(const uint8_t* header) {
  constexpr Format kF = kFormats[kFormat];
  Super super{};
  if constexpr (kF.super_scales) {
    super.d = load_f16(header);
    if constexpr (kF.has_min) super.dmin = load_f16(header + 32);
  }
  return super;
}

// Scale and min of sub-block `sub` of a super-block.
template <int kFormat>
inline void load_scale(const uint8_t* header, const Super& super, int sub, __m512& scale, __m512& min) {
  constexpr Format kF = kFormats[kFormat];
  if constexpr (kF.e2m1) {
    scale = half_e8m0(_mm_loadu_si128(reinterpret_cast<const __m128i*>(header + sub * kPanelRows)));
  } else if constexpr (!kF.super_scales) {
    scale = load_f16(header + sub * 32);
    if constexpr (kF.has_min) min = load_f16(header + kF.mins_at + sub * 32);
  } else {
    const __m128i scales = _mm_loadu_si128(reinterpret_cast<const __m128i*>(header + kF.scales_at + sub * kPanelRows));
    if constexpr (kF.nibble_scales) {
      const __m128i low = _mm_set1_epi8(15);
      scale = _mm512_mul_ps(super.d, unsigned_to_f32(_mm_and_si128(scales, low)));
      min = _mm512_mul_ps(super.dmin, unsigned_to_f32(_mm_and_si128(_mm_srli_epi16(scales, 4), low)));
    } else {
      scale = _mm512_mul_ps(super.d, signed_to_f32(scales));
      if constexpr (kF.has_min) {
        const uint8_t* mins = header + kF.mins_at + sub * kPanelRows;
        min = _mm512_mul_ps(super.dmin, unsigned_to_f32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(mins))));
      }
    }
  }
}

}  // namespace

}  // namespace nibble::kernel::blocks
