// The end of a product with rows in int8, a panel in an AVX-512 register; for files of that instruction set.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernel/affine/scales_avx512.h"

namespace nibble::kernel::affine {

// Of the including file alone, as in scales_avx512.h.
namespace {

// One input that is kept: of a column of codes, or (below 0, -1 - i) of the one that lies beside them as number i.
struct KeptInput {
  int32_t token;
  int32_t column;
  int32_t group;  // of columns
  float value;
};
inline KeptInput kept_input(const RowsJob& job, int64_t token, int64_t i) {
  const int32_t column = i < job.geometry.kept ? static_cast<int32_t>(-1 - i) : kept_columns(job.activations, token)[i];
  return {static_cast<int32_t>(token), column, static_cast<int32_t>(column / kBlock / job.geometry.group_blocks),
          kept_values(job.activations, token)[i]};
}

// The weights of a panel that it meets.
template <int kP>
inline __m512 weights_of(const RowsJob& job, const uint8_t* panel, const KeptInput& input) {
  if (input.column < 0) return load_f16(panel + job.geometry.kept_at + (-1 - input.column) * kPanelRows * 2);
  constexpr CodePlanes kCodes = kPlanes[kP];
  const CodePlace place = code_place(kCodes, input.column % kBlock / 4);
  const uint8_t* codes = panel + job.geometry.codes_at + input.column / kBlock * block_bytes(kCodes);
  const int byte = input.column % 4 * 8;
  const auto bits = [&](int vector, int bit, int count) {
    const __m512i shifted = _mm512_srl_epi32(load_codes(codes + vector * 64), _mm_cvtsi32_si128(byte + bit));
    return _mm512_and_si512(shifted, _mm512_set1_epi32((1 << count) - 1));
  };
  __m512i code = bits(place.low_vector, place.low_bit, kCodes.low_bits);
  if constexpr (kCodes.high_bits > 0) {
    const __m512i high = bits(place.high_vector, place.high_bit, kCodes.high_bits);
    code = _mm512_or_si512(code, _mm512_slli_epi32(high, kCodes.low_bits));
  }
  const __m512i zero = load_zero(job.zero, panel + job.geometry.zeros_at, input.group);
  return _mm512_mul_ps(load_scale(job.scale_type, panel, input.group),
                       _mm512_cvtepi32_ps(_mm512_sub_epi32(code, zero)));
}
template <int kP>
inline __m512 add_kept(const RowsJob& job, const uint8_t* panel, const KeptInput& input, __m512 sum) {
  return _mm512_fmadd_ps(_mm512_set1_ps(input.value), weights_of<kP>(job, panel, input), sum);
}

// From the sums over the parts of a panel to the output of a token.
inline __m512 finish_row(const RowsJob& job, const uint8_t* panel, int64_t token, __m512 y, __m512 kept) {
  const I8RowHeader& header = header_of(job.activations, token);
  const __m512 row_sums = _mm512_loadu_ps(panel + job.geometry.row_sums_at);
  return _mm512_fmadd_ps(_mm512_fnmadd_ps(_mm512_set1_ps(header.zero), row_sums, y), _mm512_set1_ps(header.scale),
                         kept);
}

}  // namespace

}  // namespace nibble::kernel::affine
