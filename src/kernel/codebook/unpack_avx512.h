// Levels of the codebook encodings in AVX-512 registers: codes are looked up in two tables of bytes, those of a row in
// a quarter of a vector; for files of that instruction set.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernel/codebook/panel.h"
#include "kernel/panel_avx512.h"

namespace nibble::kernel::codebook {

// Of the including file alone: files for AVX-512 and for AMX are compiled with different instructions.
namespace {

constexpr int kVectors = 4;  // of the codes of a panel: vector v has those of the rows v, v + 4, v + 8 and v + 12

// Sixteen numbers of 16 bits for each row: their low bytes and their high ones.
struct Tables {
  alignas(64) uint8_t low[kPairs][2][16];
  alignas(64) uint8_t high[kPairs][2][16];
};

// The row of a pair that comes first; the other one is the fourth behind it.
constexpr int first_row(int pair) { return pair / 2 + pair % 2 * 8; }

// How the numbers of a pair of rows lie in a vector: each `step` bytes behind the one before, those of the second row
// from byte `second` on. `at`: where the low bytes of both rows come from, then the high ones.
struct ByteOrder {
  constexpr ByteOrder(int step, int second) {
    for (int i = 0; i < 64; ++i) at[i] = static_cast<uint8_t>(i % 16 * step + i / 16 % 2 * second + i / 32);
  }
  alignas(64) uint8_t at[64] = {};
};

inline void store_pair(Tables& tables, int pair, const ByteOrder& order, __m512i numbers) {
  const __m512i bytes = _mm512_permutexvar_epi8(_mm512_load_si512(order.at), numbers);
  _mm256_store_si256(reinterpret_cast<__m256i*>(tables.low[pair]), _mm512_castsi512_si256(bytes));
  _mm256_store_si256(reinterpret_cast<__m256i*>(tables.high[pair]), _mm512_extracti64x4_epi64(bytes, 1));
}

// The centroids of one row, of the header of a group.
template <int kBits>
inline __m512 load_centroids(const Geometry& geometry, const uint8_t* group, int row) {
  const uint8_t* at = group + kPanelRows * 4 + (geometry.table_rows == 1 ? 0 : row) * (2 << kBits);
  if constexpr (kBits == 4) return load_f16(at);
  const auto* halves = reinterpret_cast<const __m128i*>(at);
  return _mm512_cvtph_ps(_mm256_zextsi128_si256(kBits == 3 ? _mm_loadu_si128(halves) : _mm_loadl_epi64(halves)));
}

// The codes of vector `v` in block kSub of a strip: columns 0-15 and 16-31.
template <int kBits, int kSub>
inline void load_codes(const uint8_t* strip, int v, __m512i (&code)[2]) {
  constexpr int kPlane = kPairs * kVectorBytes;
  const uint8_t* at = strip + v * 64;
  const __m512i mask = _mm512_set1_epi8(kBits == 4 ? 15 : 3);
  const __m512i bytes = _mm512_loadu_si512(at + (kBits == 3 ? kSub / 2 * kPlane : 0));
  constexpr int kBit = kBits == 4 ? 0 : kSub % 2 * 4;
  constexpr int kNext = kBits == 4 ? 4 : 2;
  code[0] = _mm512_and_si512(shift_right<kBit>(bytes), mask);
  code[1] = _mm512_and_si512(shift_right<kBit + kNext>(bytes), mask);
  if constexpr (kBits == 3) {
    const __m512i high = _mm512_loadu_si512(at + 2 * kPlane), bit = _mm512_set1_epi8(4);
    code[0] = _mm512_ternarylogic_epi32(code[0], shift_right<2 * kSub - 2>(high), bit, 0xF8);  // code | (high & bit)
    code[1] = _mm512_ternarylogic_epi32(code[1], shift_right<2 * kSub - 1>(high), bit, 0xF8);
  }
}

// The tables of a vector: those of all rows stay in registers.
template <bool kShared>
struct VectorTables {
  const Tables& tables;
  __m512i low(int v) const { return _mm512_load_si512(tables.low[2 * v]); }
  __m512i high(int v) const { return _mm512_load_si512(tables.high[2 * v]); }
};
template <>
struct VectorTables<true> {
  explicit VectorTables(const Tables& tables)
      : low_(_mm512_load_si512(tables.low)), high_(_mm512_load_si512(tables.high)) {}
  __m512i low(int /*v*/) const { return low_; }
  __m512i high(int /*v*/) const { return high_; }

 private:
  __m512i low_, high_;
};

// The bytes of what the codes of a vector stand for.
template <int kBits, int kSub, bool kShared>
[[gnu::always_inline]] inline void look_up(const uint8_t* strip, const VectorTables<kShared>& tables, int v,
                                           __m512i (&low)[2], __m512i (&high)[2]) {
  __m512i code[2];
  if constexpr (kShared && kBits == 4) {
    // Six bits count here, and in 64 bytes the table is there four times: what lies beside a code needs no mask.
    code[0] = _mm512_loadu_si512(strip + v * 64);
    code[1] = _mm512_srli_epi16(code[0], 4);
    for (int i = 0; i < 2; ++i) {
      low[i] = _mm512_permutexvar_epi8(code[i], tables.low(v));
      high[i] = _mm512_permutexvar_epi8(code[i], tables.high(v));
    }
    return;
  }
  load_codes<kBits, kSub>(strip, v, code);
  for (int i = 0; i < 2; ++i) {
    low[i] = _mm512_shuffle_epi8(tables.low(v), code[i]);
    high[i] = _mm512_shuffle_epi8(tables.high(v), code[i]);
  }
}

// Four vectors of four rows, four lanes of each: turned, so that lane r of a column is of row r.
inline void turn(const __m512i (&row)[kVectors], __m512i (&column)[4]) {
  const __m512i a = _mm512_unpacklo_epi32(row[0], row[1]), b = _mm512_unpackhi_epi32(row[0], row[1]);
  const __m512i c = _mm512_unpacklo_epi32(row[2], row[3]), d = _mm512_unpackhi_epi32(row[2], row[3]);
  column[0] = _mm512_unpacklo_epi64(a, c);
  column[1] = _mm512_unpackhi_epi64(a, c);
  column[2] = _mm512_unpacklo_epi64(b, d);
  column[3] = _mm512_unpackhi_epi64(b, d);
}

// body.operator()<kSub>(strip, block) for the blocks [begin, end) of a panel, kSub the place of a block in its strip.
template <int kBits, typename Body>
[[gnu::always_inline]] inline void for_blocks(const uint8_t* codes, int64_t begin, int64_t end, const Body& body) {
  const uint8_t* strip = codes + begin / strip_blocks(kBits) * strip_bytes(kBits);
  int sub = static_cast<int>(begin % strip_blocks(kBits));
  for (int64_t b = begin; b < end; strip += strip_bytes(kBits), sub = 0) {
    if (sub == 0) body.template operator()<0>(strip, b++);
    if constexpr (kBits < 4) {
      if (sub <= 1 && b < end) body.template operator()<1>(strip, b++);
    }
    if constexpr (kBits == 3) {
      if (sub <= 2 && b < end) body.template operator()<2>(strip, b++);
      if (b < end) body.template operator()<3>(strip, b++);
    }
  }
}

}  // namespace

}  // namespace nibble::kernel::codebook
