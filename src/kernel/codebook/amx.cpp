// The path of AMX for many tokens: panels unpacked to tiles of bf16. The tables hold the values themselves, rounded to
// bf16: the centroids, or the levels times the scale of a row's block.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/codebook/unpack_avx512.h"
#include "kernel/tile_amx.h"

namespace nibble::kernel::codebook {

namespace {

static_assert(kChunkBlocks == kStretchBlocks);  // parts end with the chunk

template <int kBits>
inline __m512 load_values(const TileWeights& weights, const uint8_t* group, int row) {
  if (weights.geometry.levels == Levels::kCentroids) return load_centroids<kBits>(weights.geometry, group, row);
  const float scale = reinterpret_cast<const float*>(group)[row];
  return _mm512_mul_ps(_mm512_loadu_ps(weights.levels), _mm512_set1_ps(scale));
}

template <int kBits>
void set_group(const TileWeights& weights, const uint8_t* group, Tables& tables) {
  static constexpr ByteOrder kOrder(2, 32);
  for (int pair = 0; pair < kPairs; ++pair) {
    const int row = first_row(pair);
    const __m512bh both =
        _mm512_cvtne2ps_pbh(load_values<kBits>(weights, group, row + 4), load_values<kBits>(weights, group, row));
    __m512i numbers;
    __builtin_memcpy(&numbers, &both, sizeof(numbers));
    store_pair(tables, pair, kOrder, numbers);
  }
}

template <int kBits, int kSub>
inline void fill_block(const uint8_t* strip, const VectorTables<false>& tables, uint8_t* tile) {
  __m512i values[4][kVectors];  // of eight columns each
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    __m512i low[2], high[2];
    look_up<kBits, kSub, false>(strip, tables, v, low, high);
    for (int i = 0; i < 2; ++i) {
      values[2 * i][v] = _mm512_unpacklo_epi8(low[i], high[i]);
      values[2 * i + 1][v] = _mm512_unpackhi_epi8(low[i], high[i]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    __m512i lines[4];
    turn(values[i], lines);
    for (int k = 0; k < 4; ++k) _mm512_store_si512(tile + (i * 4 + k) * 64, lines[k]);
  }
}

template <int kBits>
void fill(const TileWeights& weights, int64_t panel_index, int64_t begin, int count, uint8_t* tiles) {
  const Geometry& geometry = weights.geometry;
  const uint8_t* panel = weights.packed + panel_index * geometry.bytes;
  Tables tables;
  for (int64_t b = begin; b < begin + count;) {
    const uint8_t* group = panel + b / geometry.group_blocks * geometry.group_bytes;
    set_group<kBits>(weights, group, tables);
    prefetch_behind(group, static_cast<int>(geometry.group_bytes), geometry.bytes);
    const int64_t end = part_end(geometry, b);
    for_blocks<kBits>(panel + geometry.codes_at, b, end, [&]<int kSub>(const uint8_t* strip, int64_t block) {
      if (kSub == 0) prefetch_behind(strip, strip_bytes(kBits), geometry.bytes);
      fill_block<kBits, kSub>(strip, {tables}, tiles + (block - begin) * kTileBytes);
    });
    b = end;
  }
}

template <int kBits>
void compute(const TileWeights& weights, const TileJob& job) {
  TileProduct<1, 1>(job).run([&](int64_t panel, int64_t begin, int count, uint8_t* tiles) {
    fill<kBits>(weights, panel, begin, count, tiles);
  });
}

}  // namespace

void compute_amx(const TileWeights& weights, const TileJob& job) noexcept {
  if (weights.geometry.bits == 4) return compute<4>(weights, job);
  if (weights.geometry.bits == 3) return compute<3>(weights, job);
  compute<2>(weights, job);
}

}  // namespace nibble::kernel::codebook
