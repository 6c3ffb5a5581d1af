#include <immintrin.h>
#include <stdint.h>

#include "kernel/panel.h"

namespace nibble::kernel {

namespace {

// The low bytes of 32 integers in four vectors, in order.
inline __m256i low_bytes(const __m256i (&x)[4]) {
  const __m256i mask = _mm256_set1_epi32(0xFF);
  const __m256i ab = _mm256_packus_epi32(_mm256_and_si256(x[0], mask), _mm256_and_si256(x[1], mask));
  const __m256i cd = _mm256_packus_epi32(_mm256_and_si256(x[2], mask), _mm256_and_si256(x[3], mask));
  return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(ab, cd), _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0));
}

inline int sum8(__m256i x) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
}

inline float max8(__m256 x) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

}  // namespace

void quantize_q8_avx2(const QuantizeJob& job) noexcept {
  const __m256 top = _mm256_set1_ps(job.top);
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
  for (int64_t t = 0; t < job.n; ++t) {
    const float* x = job.x + t * job.ldx;
    uint8_t* row = job.out + t * job.stride;
    auto* scales = reinterpret_cast<float*>(row + job.scales_at);
    auto* sums = reinterpret_cast<int16_t*>(row + job.sums_at);
    for (int64_t b = 0; b < job.blocks; ++b, x += kBlock) {
      __m256 value[4];
      __m256 peak = _mm256_setzero_ps();
      for (int i = 0; i < 4; ++i) {
        value[i] = _mm256_loadu_ps(x + i * 8);
        peak = _mm256_max_ps(peak, _mm256_and_ps(value[i], magnitude));
      }
      float inverse;
      if (job.given != nullptr) {
        scales[b] = job.given[b];
        inverse = scales[b] >= kSmallestScale ? 1.0f / scales[b] : 0.0f;
      } else {
        const float largest = max8(peak);
        scales[b] = largest / 127.0f;
        inverse = largest >= kSmallest ? 127.0f / largest : 0.0f;
      }
      __m256i code[4];
      for (int i = 0; i < 4; ++i) {
        const __m256 level = _mm256_mul_ps(value[i], _mm256_set1_ps(inverse));
        code[i] = _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(level, top), _mm256_sub_ps(_mm256_setzero_ps(), top)));
      }
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(row + b * kBlock), low_bytes(code));
      sums[2 * b] = static_cast<int16_t>(sum8(_mm256_add_epi32(code[0], code[1])));
      sums[2 * b + 1] = static_cast<int16_t>(sum8(_mm256_add_epi32(code[2], code[3])));
    }
  }
}

}  // namespace nibble::kernel
