#include <immintrin.h>

#include "kernel/roofline_isa.h"

namespace nibble::kernel {

namespace {

inline __m256i load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

uint64_t fold(const __m256i (&sum)[4]) {
  const __m256i all = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  return static_cast<uint64_t>(_mm256_extract_epi64(all, 0) + _mm256_extract_epi64(all, 1) +
                               _mm256_extract_epi64(all, 2) + _mm256_extract_epi64(all, 3));
}

template <bool kPrefetch>
uint64_t read_stream(const uint8_t* data, int64_t n) {
  __m256i sum[4] = {};
  for (int64_t i = 0; i < n; i += 128) {
    for (int j = 0; j < 4; ++j) {
      if (kPrefetch && j % 2 == 0) _mm_prefetch(data + i + 32 * j + 4096, _MM_HINT_T0);
      sum[j] = _mm256_xor_si256(sum[j], load(data + i + 32 * j));
    }
  }
  return fold(sum);
}

uint64_t read_four(const uint8_t* data, int64_t n) {
  __m256i sum[4] = {};
  const int64_t quarter = n / 4;
  for (int64_t i = 0; i < quarter; i += 64) {
    for (int j = 0; j < 4; ++j) {
      const uint8_t* p = data + quarter * j + i;
      _mm_prefetch(p + 2048, _MM_HINT_T0);
      sum[j] = _mm256_xor_si256(sum[j], _mm256_xor_si256(load(p), load(p + 32)));
    }
  }
  return fold(sum);
}

constexpr int kChains = 10;

constexpr int kDotChains = 5;  // two registers each

// The best that AVX2 does: products of u8 x s8 added in pairs of i16, and those added while 16 bits hold them, eight
// times here (codes of 4 bits); then widened to i32.
uint64_t int8_dot(int64_t rounds) {
  constexpr int kSums = 8;
  __m256i sum[kDotChains];
  for (int j = 0; j < kDotChains; ++j) sum[j] = _mm256_set1_epi32(j);
  __m256i a = _mm256_set1_epi8(3);
  const __m256i b = _mm256_set1_epi8(-5);
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t i = 0; i < rounds; i += kSums) {
    __m256i pairs[kDotChains];
    for (int j = 0; j < kDotChains; ++j) pairs[j] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int k = 0; k < kSums; ++k) {
      for (int j = 0; j < kDotChains; ++j) {
        pairs[j] = _mm256_add_epi16(pairs[j], _mm256_maddubs_epi16(a, b));
        asm volatile("" : "+x"(a), "+x"(pairs[j]));  // as written: not all products first
      }
    }
    for (int j = 0; j < kDotChains; ++j) sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(pairs[j], ones));
  }
  const __m256i four[4] = {sum[0], sum[1], sum[2], sum[3]};
  uint64_t total = fold(four);
  for (int j = 4; j < kDotChains; ++j) total += static_cast<uint64_t>(_mm256_extract_epi64(sum[j], 0));
  return total;
}

uint64_t f32_fma(int64_t rounds) {
  __m256 sum[kChains];
  for (int j = 0; j < kChains; ++j) sum[j] = _mm256_set1_ps(static_cast<float>(j));
  __m256 a = _mm256_set1_ps(0.5f);
  __m256 b = _mm256_set1_ps(1.0f);
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+x"(a), "+x"(b));
    for (int j = 0; j < kChains; ++j) sum[j] = _mm256_fmadd_ps(sum[j], a, b);
  }
  __m256 total = sum[0];
  for (int j = 1; j < kChains; ++j) total = _mm256_add_ps(total, sum[j]);
  return static_cast<uint64_t>(_mm256_cvtss_f32(total));
}

}  // namespace

const RooflineLoops kRooflineAvx2 = {{read_stream<false>, read_stream<true>, read_four},
                                     int64_t{kDotChains} * 64,
                                     int8_dot,
                                     int64_t{kChains} * 16,
                                     f32_fma};

}  // namespace nibble::kernel
