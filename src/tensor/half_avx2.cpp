#include <immintrin.h>

#include "tensor/half_isa.h"

namespace nibble {

void f16_to_f32_avx2(const unsigned char* src, float* dst, int64_t n) noexcept {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src + 2 * i))));
  }
  for (; i < n; ++i) dst[i] = _cvtsh_ss(static_cast<uint16_t>(src[2 * i] | src[2 * i + 1] << 8));
}

void f32_to_f16_avx2(const float* src, unsigned char* dst, int64_t n) noexcept {
  constexpr int kNearestEven = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + 2 * i), _mm256_cvtps_ph(_mm256_loadu_ps(src + i), kNearestEven));
  }
  for (; i < n; ++i) {
    const unsigned half = _cvtss_sh(src[i], kNearestEven);
    dst[2 * i] = static_cast<unsigned char>(half);
    dst[2 * i + 1] = static_cast<unsigned char>(half >> 8);
  }
}

}  // namespace nibble
