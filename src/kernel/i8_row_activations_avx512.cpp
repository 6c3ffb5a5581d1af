#include <immintrin.h>
#include <stdint.h>

#include "kernel/i8_rows.h"

namespace nibble::kernel {

RowScan scan_row_avx512(const float* x, int64_t cols, float threshold, int32_t* columns, float* values) {
  const __m512 limit = _mm512_set1_ps(threshold);
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  __m512 least = _mm512_setzero_ps(), largest = _mm512_setzero_ps();
  int64_t kept = 0;
  for (int64_t c = 0; c < cols; c += 16) {
    const __m512 value = _mm512_loadu_ps(x + c);
    const __mmask16 below = _mm512_cmp_ps_mask(_mm512_abs_ps(value), limit, _CMP_LT_OQ);
    least = _mm512_mask_min_ps(least, below, least, value);
    largest = _mm512_mask_max_ps(largest, below, largest, value);
    if (below == 0xFFFF || columns == nullptr) continue;
    const __mmask16 listed = static_cast<__mmask16>(~below);
    _mm512_mask_compressstoreu_epi32(columns + kept, listed,
                                     _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int>(c))));
    _mm512_mask_compressstoreu_ps(values + kept, listed, value);
    kept += __builtin_popcount(listed);
  }
  return {_mm512_reduce_min_ps(least), _mm512_reduce_max_ps(largest), kept};
}

void round_row_avx512(const RowRounding& how, const float* x, int64_t cols, int8_t* codes, int32_t* sums) {
  const __m512 inverse = _mm512_set1_ps(how.inverse), limit = _mm512_set1_ps(how.threshold);
  const __m512 low = _mm512_set1_ps(how.low), high = _mm512_set1_ps(how.high);
  const __m512i shift = _mm512_set1_epi32(how.shift);
  int32_t sum = 0;
  const auto round = [&](int64_t c) {
    const __m512 value = _mm512_loadu_ps(x + c);
    const __mmask16 below = _mm512_cmp_ps_mask(_mm512_abs_ps(value), limit, _CMP_LT_OQ);
    const __m512 level = _mm512_max_ps(_mm512_min_ps(_mm512_maskz_mul_ps(below, value, inverse), high), low);
    const __m512i code = _mm512_add_epi32(_mm512_cvtps_epi32(level), shift);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + c), _mm512_cvtepi32_epi8(code));
    return code;
  };
  for (int64_t c = 0; c < cols; c += kBlock) {
    *sums++ = sum;
    const __m512i first = round(c), second = round(c + 16);
    sum += _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
  }
  *sums = sum;
}

}  // namespace nibble::kernel
