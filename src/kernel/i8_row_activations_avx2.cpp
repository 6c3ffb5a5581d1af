#include <immintrin.h>
#include <stdint.h>

#include "kernel/i8_rows.h"

namespace nibble::kernel {

namespace {

inline __m256 magnitude_of(__m256 x) { return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF))); }

}  // namespace

RowScan scan_row_avx2(const float* x, int64_t cols, float threshold, int32_t* columns, float* values) {
  const __m256 limit = _mm256_set1_ps(threshold);
  __m256 least = _mm256_setzero_ps(), largest = _mm256_setzero_ps();
  int64_t kept = 0;
  for (int64_t c = 0; c < cols; c += 8) {
    const __m256 value = _mm256_loadu_ps(x + c);
    const __m256 below = _mm256_cmp_ps(magnitude_of(value), limit, _CMP_LT_OQ);
    const __m256 counted = _mm256_and_ps(value, below);
    least = _mm256_min_ps(least, counted);
    largest = _mm256_max_ps(largest, counted);
    const int listed = ~_mm256_movemask_ps(below) & 0xFF;
    for (int lane = 0; lane < 8 && listed != 0 && columns != nullptr; ++lane) {
      if ((listed >> lane & 1) == 0) continue;
      columns[kept] = static_cast<int32_t>(c + lane);
      values[kept++] = x[c + lane];
    }
  }
  float lows[8], highs[8];
  _mm256_storeu_ps(lows, least);
  _mm256_storeu_ps(highs, largest);
  for (int lane = 1; lane < 8; ++lane) {
    lows[0] = lows[lane] < lows[0] ? lows[lane] : lows[0];
    highs[0] = highs[lane] > highs[0] ? highs[lane] : highs[0];
  }
  return {lows[0], highs[0], kept};
}

void round_row_avx2(const RowRounding& how, const float* x, int64_t cols, int8_t* codes, int32_t* sums) {
  const __m256 inverse = _mm256_set1_ps(how.inverse), limit = _mm256_set1_ps(how.threshold);
  const __m256 low = _mm256_set1_ps(how.low), high = _mm256_set1_ps(how.high);
  const __m256i shift = _mm256_set1_epi32(how.shift);
  int32_t sum = 0;
  for (int64_t c = 0; c < cols; c += kBlock) {
    *sums++ = sum;
    __m256i code[4];
    for (int i = 0; i < 4; ++i) {
      const __m256 value = _mm256_loadu_ps(x + c + i * 8);
      const __m256 below = _mm256_cmp_ps(magnitude_of(value), limit, _CMP_LT_OQ);
      const __m256 scaled = _mm256_mul_ps(_mm256_and_ps(value, below), inverse);
      const __m256 level = _mm256_max_ps(_mm256_min_ps(scaled, high), low);
      code[i] = _mm256_add_epi32(_mm256_cvtps_epi32(level), shift);
    }
    const __m256i ab = _mm256_packs_epi32(code[0], code[1]), cd = _mm256_packs_epi32(code[2], code[3]);
    const __m256i order = _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + c),
                        _mm256_permutevar8x32_epi32(_mm256_packs_epi16(ab, cd), order));
    const __m256i all = _mm256_add_epi32(_mm256_add_epi32(code[0], code[1]), _mm256_add_epi32(code[2], code[3]));
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    sum += _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
  }
  *sums = sum;
}

}  // namespace nibble::kernel
