// Panels in AVX-512 registers; for files of that instruction set.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernel/panel.h"

namespace nibble::kernel {

// Of the including file alone: files for AVX-512 and for AMX are compiled with different instructions.
namespace {

inline __m512i load_codes(const void* p) { return _mm512_loadu_si512(p); }
inline __m512 load_f16(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline __m512 unsigned_to_f32(__m128i x) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(x)); }
inline __m512 signed_to_f32(__m128i x) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x)); }

template <int kBits>
inline __m512i shift_right(__m512i x) {
  if constexpr (kBits > 0) return _mm512_srli_epi16(x, kBits);
  if constexpr (kBits < 0) return _mm512_slli_epi16(x, -kBits);
  return x;
}

// The codes of columns 4G..4G+3 of a block.
template <int kLowBits, int kHighBits, int kG>
inline __m512i code_group(const uint8_t* block) {
  constexpr CodePlace kPlace = code_place({kLowBits, kHighBits}, kG);
  __m512i code = load_codes(block + kPlace.low_vector * 64);
  if constexpr (kLowBits == 8) return code;
  code = _mm512_and_si512(shift_right<kPlace.low_bit>(code), _mm512_set1_epi8(code_mask(kLowBits)));
  if constexpr (kHighBits > 0) {
    const __m512i high = shift_right<kPlace.high_bit - kLowBits>(load_codes(block + kPlace.high_vector * 64));
    const __m512i mask = _mm512_set1_epi8(static_cast<char>(code_mask(kHighBits, kLowBits)));
    code = _mm512_ternarylogic_epi32(code, high, mask, 0xF8);  // code | (high & mask)
  }
  return code;
}

// All groups of a block.
template <int kLowBits, int kHighBits>
inline void unpack_codes(const uint8_t* block, __m512i (&w)[kGroups]) {
  w[0] = code_group<kLowBits, kHighBits, 0>(block);
  w[1] = code_group<kLowBits, kHighBits, 1>(block);
  w[2] = code_group<kLowBits, kHighBits, 2>(block);
  w[3] = code_group<kLowBits, kHighBits, 3>(block);
  w[4] = code_group<kLowBits, kHighBits, 4>(block);
  w[5] = code_group<kLowBits, kHighBits, 5>(block);
  w[6] = code_group<kLowBits, kHighBits, 6>(block);
  w[7] = code_group<kLowBits, kHighBits, 7>(block);
}

// Four bytes to every lane.
inline __m512i broadcast(const void* four) {
  int bits;
  __builtin_memcpy(&bits, four, 4);
  return _mm512_set1_epi32(bits);
}
inline __m512 broadcast_f32(const void* f32) { return _mm512_castsi512_ps(broadcast(f32)); }

inline __mmask16 row_mask(int64_t rows) {
  return rows >= kPanelRows ? 0xFFFF : static_cast<__mmask16>((1 << rows) - 1);
}

}  // namespace

}  // namespace nibble::kernel
