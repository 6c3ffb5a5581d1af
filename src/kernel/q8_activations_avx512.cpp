#include <immintrin.h>
#include <stdint.h>

#include "kernel/panel.h"

namespace nibble::kernel {

namespace {

inline __m512i code_of(__m512 x, float inverse, __m512 top) {
  const __m512 level = _mm512_mul_ps(x, _mm512_set1_ps(inverse));
  return _mm512_cvtps_epi32(_mm512_max_ps(_mm512_min_ps(level, top), _mm512_sub_ps(_mm512_setzero_ps(), top)));
}

}  // namespace

void quantize_q8_avx512(const QuantizeJob& job) noexcept {
  const __m512 top = _mm512_set1_ps(job.top);
  for (int64_t t = 0; t < job.n; ++t) {
    const float* x = job.x + t * job.ldx;
    uint8_t* row = job.out + t * job.stride;
    auto* scales = reinterpret_cast<float*>(row + job.scales_at);
    auto* sums = reinterpret_cast<int16_t*>(row + job.sums_at);
    for (int64_t b = 0; b < job.blocks; ++b, x += kBlock) {
      const __m512 low = _mm512_loadu_ps(x);
      const __m512 high = _mm512_loadu_ps(x + 16);
      float inverse;
      if (job.given != nullptr) {
        scales[b] = job.given[b];
        inverse = scales[b] >= kSmallestScale ? 1.0f / scales[b] : 0.0f;
      } else {
        const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
        scales[b] = largest / 127.0f;
        inverse = largest >= kSmallest ? 127.0f / largest : 0.0f;
      }
      const __m512i code_low = code_of(low, inverse, top);
      const __m512i code_high = code_of(high, inverse, top);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(row + b * kBlock), _mm512_cvtepi32_epi8(code_low));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(row + b * kBlock + 16), _mm512_cvtepi32_epi8(code_high));
      sums[2 * b] = static_cast<int16_t>(_mm512_reduce_add_epi32(code_low));
      sums[2 * b + 1] = static_cast<int16_t>(_mm512_reduce_add_epi32(code_high));
    }
  }
}

}  // namespace nibble::kernel
