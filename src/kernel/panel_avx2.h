// Panels in AVX2 registers, half of one (8 rows) in each; for files of that instruction set.
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
  constexpr CodePlace kPlace = code_place({kLowBits, kHighBits}, kG);
  __m256i code = load(block + kPlace.low_vector * 64);
  if constexpr (kLowBits == 8) return code;
  code = _mm256_and_si256(shift_right<kPlace.low_bit>(code), _mm256_set1_epi8(code_mask(kLowBits)));
  if constexpr (kHighBits > 0) {
    const __m256i high = shift_right<kPlace.high_bit - kLowBits>(load(block + kPlace.high_vector * 64));
    const __m256i mask = _mm256_set1_epi8(static_cast<char>(code_mask(kHighBits, kLowBits)));
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

inline void prefetch(const uint8_t* begin, int n_bytes) {
  for (int line = 0; line < n_bytes; line += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(begin + line), _MM_HINT_T0);
  }
}

// Tokens that a tile of unpacked weights meets at a time.
constexpr int kTileTokens = 6;

// body(first, count) over `n` tokens, at most kMost of them at a time, shared out evenly.
template <int kMost, typename Body>
inline void for_token_shares(int64_t n, Body&& body) {
  const int64_t shares = (n + kMost - 1) / kMost;
  for (int64_t i = 0; i < shares; ++i) body(n * i / shares, n * (i + 1) / shares - n * i / shares);
}

// Tokens of one pass over all panels: their activations, `stride` bytes each, stay in the second-level cache. At least
// 36, however long their rows: each pass unpacks the weights anew.
constexpr int64_t kMaxChunk = 126;
inline int64_t chunk_tokens(int64_t stride) {
  constexpr int64_t kChunkBytes = 320 << 10;
  constexpr int64_t kMinChunk = 36;
  const int64_t fitting = kChunkBytes / stride / kTileTokens * kTileTokens;
  return fitting < kMinChunk ? kMinChunk : fitting > kMaxChunk ? kMaxChunk : fitting;
}

// What the tokens of a pass have summed up in a panel so far. Kept apart from the output, whose rows lie so far apart
// that they crowd into few sets of the caches.
using PanelSums = float[kMaxChunk][2][kHalfRows];

// Lanes of the rows that exist.
inline __m256i row_mask(int64_t rows) {
  const int n = rows > kHalfRows ? kHalfRows : rows < 0 ? 0 : static_cast<int>(rows);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
}

// Writes the sums of `n` tokens to `out`, `ldo` apart: the first `rows` rows of the panel.
inline void store_sums(const float (*sums)[2][kHalfRows], int64_t n, float* out, int64_t ldo, int64_t rows) {
  for (int h = 0; h < 2; ++h) {
    const __m256i mask = row_mask(rows - h * kHalfRows);
    for (int64_t t = 0; t < n; ++t)
      _mm256_maskstore_ps(out + t * ldo + h * kHalfRows, mask, _mm256_load_ps(sums[t][h]));
  }
}

// Keeps a sum at its point of the program: left alone, GCC reorders sums of integers so that all products come first,
// and spills them.
inline __m256i here(__m256i sum) {
  asm volatile("" : "+x"(sum));
  return sum;
}

// How the products of codes with int8 activations are summed. maddubs takes unsigned codes and adds pairs in 16 bits:
// `sum_groups` groups of columns fit before they are widened, 2 * 127 * (2^bits - 1) each. Signed codes go in as
// magnitudes, their sign moved to the activation, and fill the 16 bits at once.
struct Products {
  bool is_signed;
  int groups;  // of columns, summed in all
  int sum_groups;
};
constexpr Products products_of(int bits, bool is_signed, int groups) {
  const int fitting = is_signed || bits > 6 ? 1 : bits == 6 ? 2 : bits == 5 ? 4 : 8;
  return {is_signed, groups, fitting < groups ? fitting : groups};
}

template <Products kProducts>
inline __m256i multiply_codes(__m256i w, __m256i a) {
  if constexpr (kProducts.is_signed) return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
  return _mm256_maddubs_epi16(w, a);
}
inline __m256i widen(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

// The integer sums of half a panel and one token, from `sum`: `w` the groups of columns, `a` the token's codes.
template <Products kProducts>
inline __m256i dot(const __m256i* w, const int8_t* a, __m256i sum) {
  for (int first = 0; first < kProducts.groups; first += kProducts.sum_groups) {
    __m256i pairs = _mm256_setzero_si256();
    for (int g = first; g < first + kProducts.sum_groups; ++g) {
      const __m256i product = multiply_codes<kProducts>(w[g], broadcast(a + g * 4));
      pairs = g == first ? product : here(_mm256_add_epi16(pairs, product));
    }
    sum = here(_mm256_add_epi32(sum, widen(pairs)));
  }
  return sum;
}

// The integer sums of a panel and kTokens tokens `stride` bytes apart: `w` both halves of each group of columns.
template <Products kProducts, int kTokens>
inline void dot_panel(const uint8_t (*w)[2][32], const int8_t* a, int64_t stride, __m256i (&sum)[2][kTokens]) {
#pragma GCC unroll 8
  for (int first = 0; first < kProducts.groups; first += kProducts.sum_groups) {
    __m256i pairs[2][kTokens];
#pragma GCC unroll 8
    for (int g = first; g < first + kProducts.sum_groups; ++g) {
      const __m256i weights[2] = {_mm256_load_si256(reinterpret_cast<const __m256i*>(w[g][0])),
                                  _mm256_load_si256(reinterpret_cast<const __m256i*>(w[g][1]))};
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const __m256i four = broadcast(a + t * stride + g * 4);
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          const __m256i product = multiply_codes<kProducts>(weights[h], four);
          pairs[h][t] = g == first ? product : here(_mm256_add_epi16(pairs[h][t], product));
        }
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        const __m256i wide = widen(pairs[h][t]);
        sum[h][t] = first == 0 ? wide : here(_mm256_add_epi32(sum[h][t], wide));
      }
    }
  }
}

}  // namespace nibble::kernel
