#include <immintrin.h>

#include "kernel/tile.h"

namespace nibble::kernel {

namespace {

inline __m512i bits_of(__m256bh x) {
  __m256i bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  return _mm512_cvtepu16_epi32(bits);
}

}  // namespace

void round_to_bf16(const float* x, int64_t cols, int planes, int64_t plane_bytes, uint8_t* out) noexcept {
  for (int64_t c = 0; c < plane_bytes / 2; c += 16, out += 32) {
    const __mmask16 mask = cols - c >= 16 ? 0xFFFF : cols <= c ? 0 : static_cast<__mmask16>((1 << (cols - c)) - 1);
    __m512 rest = _mm512_maskz_loadu_ps(mask, x + c);
    for (int p = 0; p < planes; ++p) {
      const __m512i bits = bits_of(_mm512_cvtneps_pbh(rest));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + p * plane_bytes), _mm512_cvtepi32_epi16(bits));
      rest = _mm512_sub_ps(rest, _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)));
    }
  }
}

}  // namespace nibble::kernel
