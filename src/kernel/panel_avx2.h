// Half a panel (8 rows) in AVX2 registers; for files of that instruction set.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernel/panel.h"

namespace nibble::kernel {

constexpr int kHalfRows = kPanelRows / 2;

inline __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline __m256 load_f16(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

template <int kBits>
inline __m256i shift_right(__m256i x) {
  if constexpr (kBits > 0) return _mm256_srli_epi16(x, kBits);
  if constexpr (kBits < 0) return _mm256_slli_epi16(x, -kBits);
  return x;
}

// The codes of columns 4G..4G+3; `block` is that of the panel, moved by 32 bytes for its second half.
template <int kLowBits, int kHighBits, int kG>
inline __m256i code_group(const uint8_t* block) {
  if constexpr (kLowBits == 8) return load(block + kG * 64);
  constexpr int kVector = kLowBits == 4 ? kG % 4 : kG / 4;
  constexpr int kBit = kLowBits == 4 ? kG / 4 * 4 : kG % 4 * 2;
  __m256i code =
      _mm256_and_si256(shift_right<kBit>(load(block + kVector * 64)), _mm256_set1_epi8(kLowBits == 4 ? 15 : 3));
  if constexpr (kHighBits > 0) {
    constexpr int kLowBytes = kPanelRows * kBlock * kLowBits / 8;
    constexpr int kHighVector = kHighBits == 1 ? 0 : kG / 4;
    constexpr int kHighBit = kHighBits == 1 ? kG : kG % 4 * 2;
    const __m256i high = shift_right<kHighBit - kLowBits>(load(block + kLowBytes + kHighVector * 64));
    const __m256i mask = _mm256_set1_epi8(static_cast<char>(((1 << kHighBits) - 1) << kLowBits));
    code = _mm256_or_si256(code, _mm256_and_si256(high, mask));
  }
  return code;
}

inline const float* scales_of(const Activations& a, int64_t token) {
  return reinterpret_cast<const float*>(a.rows + token * a.stride + a.scales_at);
}
inline const int8_t* codes_of(const Activations& a, int64_t token) {
  return reinterpret_cast<const int8_t*>(a.rows + token * a.stride);
}

// Four bytes to every lane.
inline __m256i broadcast(const void* four) {
  int bits;
  __builtin_memcpy(&bits, four, 4);
  return _mm256_set1_epi32(bits);
}

inline void prefetch(const uint8_t* line) { _mm_prefetch(reinterpret_cast<const char*>(line), _MM_HINT_T0); }

// Lanes of the rows that exist.
inline __m256i row_mask(int64_t rows) {
  const int n = rows > kHalfRows ? kHalfRows : rows < 0 ? 0 : static_cast<int>(rows);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
}

// Keeps a sum at its point of the program: left alone, GCC reorders sums of integers so that all products come first,
// and spills them.
inline __m256i here(__m256i sum) {
  asm volatile("" : "+x"(sum));
  return sum;
}

}  // namespace nibble::kernel
