// Levels of the codebook encodings in AVX2 registers; for files of that instruction set.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernel/codebook/panel.h"
#include "kernel/panel_avx2.h"

namespace nibble::kernel::codebook {

constexpr int kHalves = 2;
constexpr int kHalfPairs = kPairs / kHalves;

// Bytes of the levels of each row: [low, high].
struct Tables {
  alignas(32) uint8_t low[kPairs][2][16];
  alignas(32) uint8_t high[kPairs][2][16];
};

inline __m128i load_half(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

// Sixteen levels of 16 bits, to one row or to all.
inline void set_table(Tables& tables, int row, __m128i first, __m128i last) {
  const __m128i mask = _mm_set1_epi16(255);
  const __m128i low = _mm_packus_epi16(_mm_and_si128(first, mask), _mm_and_si128(last, mask));
  const __m128i high = _mm_packus_epi16(_mm_srli_epi16(first, 8), _mm_srli_epi16(last, 8));
  const int pair = row % 4 * kHalves + row / 8, side = row % 8 / 4;
  _mm_store_si128(reinterpret_cast<__m128i*>(tables.low[pair][side]), low);
  _mm_store_si128(reinterpret_cast<__m128i*>(tables.high[pair][side]), high);
}

inline void set_fixed(Tables& tables, const int16_t (&levels)[kMaxLevels]) {
  for (int row = 0; row < kPanelRows; ++row) set_table(tables, row, load_half(levels), load_half(levels + 8));
}

// Centroids in f16 as levels. inverse: what they are multiplied by.
template <int kBits>
inline void set_centroids(Tables& tables, int row, const uint8_t* centroids, __m256 inverse) {
  __m128i halves[2] = {};
  if constexpr (kBits == 2) {
    halves[0] = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(centroids));
  } else {
    halves[0] = load_half(centroids);
    if constexpr (kBits == 4) halves[1] = load_half(centroids + 16);
  }
  __m128i levels[2] = {};
  for (int i = 0; i < (kBits == 4 ? 2 : 1); ++i) {
    const __m256i whole = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtph_ps(halves[i]), inverse));
    levels[i] = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  }
  set_table(tables, row, levels[0], levels[1]);
}

inline float scale_at(const uint8_t* group, int row) { return reinterpret_cast<const float*>(group)[row]; }

template <int kBits>
void set_group(const Geometry& geometry, const uint8_t* group, Tables& tables) {
  if (geometry.table_rows == 0) return;
  for (int row = 0; row < kPanelRows; ++row) {
    const uint8_t* centroids = group + kPanelRows * 4 + (geometry.table_rows == 1 ? 0 : row) * (2 << kBits);
    // Rows that do not exist have a scale of 0.
    const float scale = scale_at(group, geometry.table_rows == 1 ? 0 : row);
    set_centroids<kBits>(tables, row, centroids, _mm256_set1_ps(scale > 0 ? 1.0f / scale : 0.0f));
  }
}

// The scales of half a panel in one group.
inline __m256 load_scale(const Geometry& geometry, const uint8_t* group, int half) {
  const __m256 scale = _mm256_loadu_ps(reinterpret_cast<const float*>(group) + half * kHalfRows);
  if (geometry.levels == Levels::kCentroids) return scale;
  return _mm256_mul_ps(scale, _mm256_set1_ps(1.0f / (geometry.levels == Levels::kNf4 ? kNf4Unit : kFp4Unit)));
}

// The codes of a pair of rows in block kSub of a strip: columns 0-15 and 16-31.
template <int kBits, int kSub>
inline void load_codes(const uint8_t* strip, int pair, __m256i (&code)[2]) {
  constexpr int kPlane = kPairs * kVectorBytes;
  const uint8_t* at = strip + pair * kVectorBytes;
  if constexpr (kBits == 4) {
    const __m256i bytes = load(at), mask = _mm256_set1_epi8(15);
    code[0] = _mm256_and_si256(bytes, mask);
    code[1] = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
    return;
  }
  const __m256i mask = _mm256_set1_epi8(3);
  const __m256i bytes = load(at + (kBits == 3 ? kSub / 2 * kPlane : 0));
  constexpr int kBit = kSub % 2 * 4;
  code[0] = _mm256_and_si256(shift_right<kBit>(bytes), mask);
  code[1] = _mm256_and_si256(shift_right<kBit + 2>(bytes), mask);
  if constexpr (kBits == 3) {
    const __m256i high = load(at + 2 * kPlane), bit = _mm256_set1_epi8(4);
    code[0] = _mm256_or_si256(code[0], _mm256_and_si256(shift_right<2 * kSub - 2>(high), bit));
    code[1] = _mm256_or_si256(code[1], _mm256_and_si256(shift_right<2 * kSub - 1>(high), bit));
  }
}

// The tables of a pair of rows: those of all rows stay in registers.
template <bool kShared>
struct PairTables {
  const Tables& tables;
  __m256i low(int pair) const { return load(tables.low[pair]); }
  __m256i high(int pair) const { return load(tables.high[pair]); }
};
template <>
struct PairTables<true> {
  explicit PairTables(const Tables& tables) : low_(load(tables.low[0])), high_(load(tables.high[0])) {}
  __m256i low(int /*pair*/) const { return low_; }
  __m256i high(int /*pair*/) const { return high_; }

 private:
  __m256i low_, high_;
};

// The levels of those: level[i] has columns 8i .. 8i + 7, of one row in each half.
template <int kBits, int kSub, bool kShared>
[[gnu::always_inline]] inline void look_up(const uint8_t* strip, const PairTables<kShared>& tables, int pair,
                                           __m256i (&level)[4]) {
  __m256i code[2];
  load_codes<kBits, kSub>(strip, pair, code);
  const __m256i low = tables.low(pair), high = tables.high(pair);
  for (int i = 0; i < 2; ++i) {
    const __m256i l = _mm256_shuffle_epi8(low, code[i]), h = _mm256_shuffle_epi8(high, code[i]);
    level[2 * i] = _mm256_unpacklo_epi8(l, h);
    level[2 * i + 1] = _mm256_unpackhi_epi8(l, h);
  }
}

}  // namespace nibble::kernel::codebook
