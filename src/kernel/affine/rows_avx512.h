// The end of a product with rows in int8, a panel in an AVX-512 register; for files of that instruction set.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernel/affine/scales_avx512.h"

namespace nibble::kernel::affine {

// Of the including file alone, as in scales_avx512.h.
namespace {

// The values of one column of a panel.
template <int kP>
__m512 column_values(const RowsJob& job, const uint8_t* panel, int64_t column) {
  constexpr CodePlanes kCodes = kPlanes[kP];
  const int64_t block = column / kBlock, group = block / job.geometry.group_blocks;
  const CodePlace place = code_place(kCodes, static_cast<int>(column % kBlock / 4));
  const uint8_t* codes = panel + job.geometry.codes_at + block * block_bytes(kCodes);
  const int byte = static_cast<int>(column % 4) * 8;
  const auto bits = [&](int vector, int bit, int count) {
    const __m512i shifted = _mm512_srl_epi32(load_codes(codes + vector * 64), _mm_cvtsi32_si128(byte + bit));
    return _mm512_and_si512(shifted, _mm512_set1_epi32((1 << count) - 1));
  };
  __m512i code = bits(place.low_vector, place.low_bit, kCodes.low_bits);
  if constexpr (kCodes.high_bits > 0) {
    const __m512i high = bits(place.high_vector, place.high_bit, kCodes.high_bits);
    code = _mm512_or_si512(code, _mm512_slli_epi32(high, kCodes.low_bits));
  }
  const __m512i zero = load_zero(job.zero, panel + job.geometry.zeros_at, group);
  return _mm512_mul_ps(load_scale(job.scale_type, panel, group), _mm512_cvtepi32_ps(_mm512_sub_epi32(code, zero)));
}

// From the sums over the parts of a panel to the output of a token.
template <int kP>
inline __m512 finish_row(const RowsJob& job, const uint8_t* panel, int64_t token, __m512 y) {
  const I8Rows& a = job.activations;
  const I8RowHeader& header = header_of(a, token);
  const __m512 row_sums = _mm512_loadu_ps(panel + job.geometry.row_sums_at);
  y = _mm512_mul_ps(_mm512_fnmadd_ps(_mm512_set1_ps(header.zero), row_sums, y), _mm512_set1_ps(header.scale));
  const int64_t beside = job.geometry.kept;
  for (int64_t i = 0; i < header.kept; ++i) {
    const __m512 values = i < beside ? load_f16(panel + job.geometry.kept_at + i * kPanelRows * 2)
                                     : column_values<kP>(job, panel, kept_columns(a, token)[i]);
    y = _mm512_fmadd_ps(_mm512_set1_ps(kept_values(a, token)[i]), values, y);
  }
  return y;
}

}  // namespace

}  // namespace nibble::kernel::affine
