#include <immintrin.h>

#include "kernel/roofline_isa.h"

namespace nibble::kernel {

namespace {

uint64_t fold(const __m512i (&sum)[4]) {
  const __m512i all = _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]), _mm512_xor_si512(sum[2], sum[3]));
  alignas(64) uint64_t word[8];
  _mm512_store_si512(word, all);
  return word[0] ^ word[1] ^ word[2] ^ word[3] ^ word[4] ^ word[5] ^ word[6] ^ word[7];
}

template <bool kPrefetch>
uint64_t read_stream(const uint8_t* data, int64_t n) {
  __m512i sum[4] = {};
  for (int64_t i = 0; i < n; i += 256) {
    for (int j = 0; j < 4; ++j) {
      if constexpr (kPrefetch) _mm_prefetch(data + i + 64 * j + 4096, _MM_HINT_T0);
      sum[j] = _mm512_xor_si512(sum[j], _mm512_loadu_si512(data + i + 64 * j));
    }
  }
  return fold(sum);
}

uint64_t read_four(const uint8_t* data, int64_t n) {
  __m512i sum[4] = {};
  const int64_t quarter = n / 4;
  for (int64_t i = 0; i < quarter; i += 64) {
    for (int j = 0; j < 4; ++j) {
      _mm_prefetch(data + quarter * j + i + 2048, _MM_HINT_T0);
      sum[j] = _mm512_xor_si512(sum[j], _mm512_loadu_si512(data + quarter * j + i));
    }
  }
  return fold(sum);
}

constexpr int kChains = 12;

uint64_t int8_dot(int64_t rounds) {
  __m512i sum[kChains];
  for (int j = 0; j < kChains; ++j) sum[j] = _mm512_set1_epi32(j);
  __m512i a = _mm512_set1_epi8(3);
  __m512i b = _mm512_set1_epi8(-5);
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+v"(a), "+v"(b));
    for (int j = 0; j < kChains; ++j) sum[j] = _mm512_dpbusd_epi32(sum[j], a, b);
  }
  __m512i total = sum[0];
  for (int j = 1; j < kChains; ++j) total = _mm512_add_epi32(total, sum[j]);
  return static_cast<uint64_t>(_mm_cvtsi128_si32(_mm512_castsi512_si128(total)));
}

uint64_t f32_fma(int64_t rounds) {
  __m512 sum[kChains];
  for (int j = 0; j < kChains; ++j) sum[j] = _mm512_set1_ps(static_cast<float>(j));
  __m512 a = _mm512_set1_ps(0.5f);
  __m512 b = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+v"(a), "+v"(b));
    for (int j = 0; j < kChains; ++j) sum[j] = _mm512_fmadd_ps(sum[j], a, b);
  }
  __m512 total = sum[0];
  for (int j = 1; j < kChains; ++j) total = _mm512_add_ps(total, sum[j]);
  return static_cast<uint64_t>(_mm512_reduce_add_ps(total));
}

}  // namespace

const RooflineLoops kRooflineAvx512 = {{read_stream<false>, read_stream<true>, read_four},
                                       int64_t{kChains} * 128,
                                       int8_dot,
                                       int64_t{kChains} * 32,
                                       f32_fma};

}  // namespace nibble::kernel
