// The path of AVX-512 with VNNI: one token (or a few) streams the packed weights through registers; more tokens meet a
// tile of 32 rows that is unpacked once. Zeros enter as one more product, with the sums of activations.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/affine/scales_avx512.h"

namespace nibble::kernel::affine {

namespace {

constexpr int kStreamTokens = 8;  // that meet a block in registers
constexpr int kStreamGroups = 3;  // of so many tokens, before tiles are better
constexpr int kTileTokens = 6;    // 2 panels x 6 tokens: 12 integer and 12 float sums in registers
constexpr int kPrefetchBytes = 2048;

// What the two 16-bit sums of activations in a lane are multiplied by: less the zero, twice.
inline __m512i load_minus_zero(const Job& job, const uint8_t* panel, int64_t group) {
  const __m512i zero = load_zero(job.zero, panel + job.geometry.zeros_at, group);
  return _mm512_sub_epi16(_mm512_setzero_si512(), _mm512_or_si512(zero, _mm512_slli_epi32(zero, 16)));
}

// Where activations lie in their rows.
struct Offsets {
  int64_t codes, sums, scales;
  void next() { codes += kBlock, sums += 4, scales += 4; }
};
inline Offsets offsets_of(const Activations& a, int64_t block) {
  return {block * kBlock, a.sums_at + block * 4, a.scales_at + block * 4};
}

// Adds the part of a panel at block `begin` (codes at `block`) times the tokens of `rows` to y.
template <int kP, int kTokens>
inline void stream_part(const Job& job, const uint8_t* panel, const uint8_t* block, int64_t begin, int64_t end,
                        const uint8_t* const (&rows)[kTokens], __m512 (&y)[kTokens]) {
  constexpr CodePlanes kCodes = kPlanes[kP];
  constexpr int kBlockBytes = block_bytes(kCodes);
  const int64_t group = begin / job.geometry.group_blocks;
  const __m512i minus_zero = load_minus_zero(job, panel, group);
  __m512 s[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) s[t] = _mm512_setzero_ps();
  Offsets at = offsets_of(job.activations, begin);
  for (int64_t b = begin; b < end; ++b, block += kBlockBytes, at.next()) {
    for (int line = 0; line < kBlockBytes; line += 64) _mm_prefetch(block + kPrefetchBytes + line, _MM_HINT_T0);
    __m512i w[kGroups];
    unpack_codes<kCodes.low_bits, kCodes.high_bits>(block, w);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      __m512i dot = _mm512_madd_epi16(minus_zero, broadcast(rows[t] + at.sums));
#pragma GCC unroll 8
      for (int g = 0; g < kGroups; ++g) dot = _mm512_dpbusd_epi32(dot, w[g], broadcast(rows[t] + at.codes + g * 4));
      s[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), broadcast_f32(rows[t] + at.scales), s[t]);
    }
  }
  const __m512 scale = load_scale(job.scale_type, panel, group);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) y[t] = _mm512_fmadd_ps(s[t], scale, y[t]);
}

// kPanels panels, a part of each in turn: memory gives more to several streams than to one.
template <int kP, int kTokens, int kPanels>
void stream_panels(const Job& job, int64_t first, int64_t row) {
  const Geometry& geometry = job.geometry;
  const uint8_t* panel = job.packed + row / kPanelRows * geometry.bytes;
  const uint8_t* rows[kTokens];
  for (int t = 0; t < kTokens; ++t) rows[t] = job.activations.rows + (first + t) * job.activations.stride;
  __m512 y[kPanels][kTokens];
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) y[p][t] = _mm512_setzero_ps();
  }
  for (int64_t begin = 0; begin < geometry.blocks;) {
    const int64_t end = part_end(geometry, begin);
    const uint8_t* block = panel + geometry.codes_at + begin * block_bytes(kPlanes[kP]);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const int64_t behind = p * geometry.bytes;
      stream_part<kP, kTokens>(job, panel + behind, block + behind, begin, end, rows, y[p]);
    }
    begin = end;
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    const __mmask16 mask = row_mask(job.row_end - row - p * kPanelRows);
    float* out = job.out + first * job.ldo + row + p * kPanelRows;
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) _mm512_mask_storeu_ps(out + t * job.ldo, mask, y[p][t]);
  }
}

// Few tokens: every panel once, through registers; its second group of tokens finds it in the cache.
template <int kP>
void stream(const Job& job) {
  using Stream = void (*)(const Job&, int64_t, int64_t);
  static constexpr Stream kOnePanel[kStreamTokens] = {
      stream_panels<kP, 1, 1>, stream_panels<kP, 2, 1>, stream_panels<kP, 3, 1>, stream_panels<kP, 4, 1>,
      stream_panels<kP, 5, 1>, stream_panels<kP, 6, 1>, stream_panels<kP, 7, 1>, stream_panels<kP, 8, 1>};
  static constexpr Stream kManyPanels[] = {stream_panels<kP, 1, 4>, stream_panels<kP, 2, 2>, stream_panels<kP, 3, 2>,
                                           stream_panels<kP, 4, 2>};
  static constexpr int kPanels[] = {4, 2, 2, 2};
  const int64_t groups = (job.n + kStreamTokens - 1) / kStreamTokens;
  int64_t row = job.row_begin;
  if (job.n <= 4) {
    const int panels = kPanels[job.n - 1];
    for (; row + (panels - 1) * kPanelRows < job.row_end; row += panels * kPanelRows)
      kManyPanels[job.n - 1](job, 0, row);
  }
  for (; row < job.row_end; row += kPanelRows) {
    for (int64_t i = 0; i < groups; ++i) {
      const int64_t first = job.n * i / groups;
      kOnePanel[job.n * (i + 1) / groups - first - 1](job, first, row);
    }
  }
}

// A stretch of one or two panels, unpacked: the codes of its blocks, where the vectors of the panels lie side by side
// within a group of columns, and the parts of groups in it.
template <int kPanels>
struct Tile {
  alignas(64) uint8_t codes[kStretchBlocks][kGroups][kPanels][64];
  __m512 scales[kStretchBlocks][kPanels];
  __m512i minus_zeros[kStretchBlocks][kPanels];
  int part_ends[kStretchBlocks];
  int count;  // blocks
};

template <int kP, int kPanels>
void fill_tile(const Job& job, const uint8_t* panel, int64_t begin, Tile<kPanels>& tile) {
  constexpr CodePlanes kCodes = kPlanes[kP];
  const Geometry& geometry = job.geometry;
  const int64_t rest = geometry.blocks - begin;
  tile.count = static_cast<int>(rest < kStretchBlocks ? rest : kStretchBlocks);
  for (int p = 0; p < kPanels; ++p) {
    const uint8_t* block = panel + p * geometry.bytes + geometry.codes_at + begin * block_bytes(kCodes);
    for (int b = 0; b < tile.count; ++b, block += block_bytes(kCodes)) {
      __m512i w[kGroups];
      unpack_codes<kCodes.low_bits, kCodes.high_bits>(block, w);
      for (int g = 0; g < kGroups; ++g) _mm512_store_si512(tile.codes[b][g][p], w[g]);
    }
  }
  for (int b = 0, part = 0; b < tile.count; b = tile.part_ends[part++]) {
    tile.part_ends[part] = static_cast<int>(part_end(geometry, begin + b) - begin);
    const int64_t group = (begin + b) / geometry.group_blocks;
    for (int p = 0; p < kPanels; ++p) {
      tile.scales[part][p] = load_scale(job.scale_type, panel + p * geometry.bytes, group);
      tile.minus_zeros[part][p] = load_minus_zero(job, panel + p * geometry.bytes, group);
    }
  }
}

// What the tokens of a pass have summed up in the panels of a tile so far. Kept apart from the output, whose rows lie
// so far apart that they crowd into few sets of the caches.
constexpr int64_t kPassTokens = 126;
template <int kPanels>
using Sums = __m512[kPassTokens][kPanels];

// A tile times kTokens tokens from `token` on, added to their sums (or written there, at the first blocks of a row).
template <int kPanels, int kTokens>
void multiply(const Job& job, const Tile<kPanels>& tile, int64_t token, int64_t begin, __m512 (*sums)[kPanels]) {
  const int64_t stride = job.activations.stride;
  const uint8_t* a = job.activations.rows + token * stride;
  Offsets at = offsets_of(job.activations, begin);
  for (int b = 0, part = 0; b < tile.count; ++part) {
    __m512 s[kPanels][kTokens];
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) s[p][t] = _mm512_setzero_ps();
    }
    for (; b < tile.part_ends[part]; ++b, at.next()) {
      __m512i dot[kPanels][kTokens];
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const __m512i a_sums = broadcast(a + t * stride + at.sums);
#pragma GCC unroll 2
        for (int p = 0; p < kPanels; ++p) dot[p][t] = _mm512_madd_epi16(tile.minus_zeros[part][p], a_sums);
      }
#pragma GCC unroll 8
      for (int g = 0; g < kGroups; ++g) {
        __m512i w[kPanels];
#pragma GCC unroll 2
        for (int p = 0; p < kPanels; ++p) w[p] = _mm512_load_si512(tile.codes[b][g][p]);
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
          const __m512i four = broadcast(a + t * stride + at.codes + g * 4);
#pragma GCC unroll 2
          for (int p = 0; p < kPanels; ++p) dot[p][t] = _mm512_dpbusd_epi32(dot[p][t], w[p], four);
        }
      }
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const __m512 a_scale = broadcast_f32(a + t * stride + at.scales);
#pragma GCC unroll 2
        for (int p = 0; p < kPanels; ++p) s[p][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[p][t]), a_scale, s[p][t]);
      }
    }
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const __m512 y = begin == 0 && part == 0 ? _mm512_setzero_ps() : sums[t][p];
        sums[t][p] = _mm512_fmadd_ps(s[p][t], tile.scales[part][p], y);
      }
    }
  }
}

// Tokens [first, first + n) times one or two panels.
template <int kP, int kPanels>
void multiply_panels(const Job& job, int64_t row, int64_t first, int64_t n) {
  using Multiply = void (*)(const Job&, const Tile<kPanels>&, int64_t, int64_t, __m512(*)[kPanels]);
  static constexpr Multiply kMultiply[kTileTokens] = {multiply<kPanels, 1>, multiply<kPanels, 2>, multiply<kPanels, 3>,
                                                      multiply<kPanels, 4>, multiply<kPanels, 5>, multiply<kPanels, 6>};
  Tile<kPanels> tile;
  Sums<kPanels> sums;
  const uint8_t* panel = job.packed + row / kPanelRows * job.geometry.bytes;
  const int64_t shares = (n + kTileTokens - 1) / kTileTokens;  // tokens are shared out evenly
  for (int64_t begin = 0; begin < job.geometry.blocks; begin += kStretchBlocks) {
    fill_tile<kP, kPanels>(job, panel, begin, tile);
    for (int64_t i = 0; i < shares; ++i) {
      const int64_t token = n * i / shares;
      const int64_t tokens = n * (i + 1) / shares - token;
      kMultiply[tokens - 1](job, tile, first + token, begin, sums + token);
    }
  }
  for (int p = 0; p < kPanels; ++p) {
    const __mmask16 mask = row_mask(job.row_end - row - p * kPanelRows);
    float* out = job.out + first * job.ldo + row + p * kPanelRows;
    for (int64_t t = 0; t < n; ++t) _mm512_mask_storeu_ps(out + t * job.ldo, mask, sums[t][p]);
  }
}

template <int kP>
void compute(const Job& job) {
  if (job.n <= kStreamTokens * kStreamGroups) return stream<kP>(job);
  for (int64_t first = 0; first < job.n; first += kPassTokens) {
    const int64_t n = job.n - first < kPassTokens ? job.n - first : kPassTokens;
    int64_t row = job.row_begin;
    for (; row + kPanelRows < job.row_end; row += 2 * kPanelRows) multiply_panels<kP, 2>(job, row, first, n);
    if (row < job.row_end) multiply_panels<kP, 1>(job, row, first, n);
  }
}

}  // namespace

void compute_avx512(const Job& job) noexcept {
  static constexpr void (*kByPlanes[kPlanesCount])(const Job&) = {compute<0>, compute<1>, compute<2>,
                                                                  compute<3>, compute<4>, compute<5>};
  kByPlanes[job.geometry.planes](job);
}

}  // namespace nibble::kernel::affine
