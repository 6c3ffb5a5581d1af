// The product of unpacked weight tiles with bf16 activations; for files compiled for AMX. Two panels and 32 tokens fill
// the eight tile registers: four of sums, two of activations, two of weights.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernel/panel_avx512.h"
#include "kernel/tile.h"
#include "kernel/tile_config.h"

namespace nibble::kernel {

// Of the including file alone, as in panel_avx512.h.
namespace {

constexpr int kTileTokens = kTileRows;
constexpr int kPassTokens = 512;
constexpr int kPassPanels = 16;   // panels that share the activations of a pass: rows of them come from afar
constexpr int kChunkBlocks = 16;  // blocks unpacked at a time: those of 32 tokens stay in the first-level cache

// Tiles 0, 1 (and 2, 3) sums of a panel each for the first (and second) tokens; 4, 5 activations; 6, 7 weights.
inline void configure_tiles(int tokens) {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = 64;
    config.rows[tile] = static_cast<uint8_t>(tile < 6 ? tokens : kTileTokens);
  }
  _tile_loadconfig(&config);
}

// Weights of a pass, in kPlanes parts that add up, and what has been summed up of it: tiles of 16 tokens of a panel.
template <int kPlanes>
struct alignas(64) TileMemory {
  uint8_t weights[kPassPanels][kPlanes][kChunkBlocks][kTileBytes];
  float sums[kPassTokens / kTileTokens][kPassPanels][kTileTokens][kPanelRows];
};

// Adds the products of a chunk to kTokenTiles x kPanels tiles of sums (or begins them), for every pair of planes that
// counts.
template <int kPlanes, int kActivationPlanes, int kPanels, int kTokenTiles>
inline void sum_tiles(const TileJob& job, TileMemory<kPlanes>& memory, const uint8_t* activations, int64_t token_tile,
                      int panel, int count, bool first) {
  constexpr int kStride = 64;
  const int64_t stride = job.stride;
  auto* sums = memory.sums + token_tile;
  if (first) {
    _tile_zero(0);
    if constexpr (kPanels == 2) _tile_zero(1);
    if constexpr (kTokenTiles == 2) _tile_zero(2);
    if constexpr (kTokenTiles == 2 && kPanels == 2) _tile_zero(3);
  } else {
    _tile_loadd(0, sums[0][panel], kStride);
    if constexpr (kPanels == 2) _tile_loadd(1, sums[0][panel + 1], kStride);
    if constexpr (kTokenTiles == 2) _tile_loadd(2, sums[1][panel], kStride);
    if constexpr (kTokenTiles == 2 && kPanels == 2) _tile_loadd(3, sums[1][panel + 1], kStride);
  }
  for (int w = 0; w < kPlanes; ++w) {
    for (int a = 0; a < kActivationPlanes; ++a) {
      if (w > 0 && a > 0) continue;  // beyond what f32 sums hold
      const uint8_t* x = activations + a * job.plane_bytes;
      for (int b = 0; b < count; ++b, x += 64) {
        _tile_loadd(6, memory.weights[panel][w][b], kStride);
        _tile_loadd(4, x, stride);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (kPanels == 2) {
          _tile_loadd(7, memory.weights[panel + 1][w][b], kStride);
          _tile_dpbf16ps(1, 4, 7);
        }
        if constexpr (kTokenTiles == 2) {
          _tile_loadd(5, x + kTileTokens * stride, stride);
          _tile_dpbf16ps(2, 5, 6);
          if constexpr (kPanels == 2) _tile_dpbf16ps(3, 5, 7);
        }
      }
    }
  }
  _tile_stored(0, sums[0][panel], kStride);
  if constexpr (kPanels == 2) _tile_stored(1, sums[0][panel + 1], kStride);
  if constexpr (kTokenTiles == 2) _tile_stored(2, sums[1][panel], kStride);
  if constexpr (kTokenTiles == 2 && kPanels == 2) _tile_stored(3, sums[1][panel + 1], kStride);
}

// One call of the kernel, in passes of tokens and panels and, within one, chunks of columns.
template <int kPlanes, int kActivationPlanes>
class TileProduct {
 public:
  explicit TileProduct(const TileJob& job) : job_(job) {}

  // fill(panel, first block, count, tiles): unpacks blocks of a panel; plane p lies p * kChunkBlocks tiles behind.
  template <typename Fill>
  void run(const Fill& fill) {
    const int64_t panels = (job_.row_end - job_.row_begin + kPanelRows - 1) / kPanelRows;
    const int64_t passes = (panels + kPassPanels - 1) / kPassPanels;
    for (int64_t token = 0; token < job_.n; token += kPassTokens) {
      const int64_t n = job_.n - token < kPassTokens ? job_.n - token : kPassTokens;
      for (int64_t pass = 0; pass < passes; ++pass) {
        const int64_t panel = panels * pass / passes;
        run_pass(token, n, job_.row_begin / kPanelRows + panel, static_cast<int>(panels * (pass + 1) / passes - panel),
                 fill);
      }
    }
    _tile_release();
  }

 private:
  template <typename Fill>
  void run_pass(int64_t token, int64_t n, int64_t panel, int panels, const Fill& fill) {
    for (int64_t begin = 0; begin < job_.blocks; begin += kChunkBlocks) {
      const int count = static_cast<int>(job_.blocks - begin < kChunkBlocks ? job_.blocks - begin : kChunkBlocks);
      for (int p = 0; p < panels; ++p) fill(panel + p, begin, count, memory_.weights[p][0][0]);
      memory_is_touched();
      int64_t t = 0;
      if (n >= kTileTokens) configure_tiles(kTileTokens);
      for (; t + 2 * kTileTokens <= n; t += 2 * kTileTokens)
        sum_panels<2>(token, t, 2 * kTileTokens, panels, begin, count);
      for (; t + kTileTokens <= n; t += kTileTokens) sum_panels<1>(token, t, kTileTokens, panels, begin, count);
      if (t < n) configure_tiles(static_cast<int>(n - t));
      if (t < n) sum_panels<1>(token, t, n - t, panels, begin, count);
      memory_is_touched();
    }
    store(token, n, panel, panels);
  }

  // The chunk at block `begin` of up to 32 tokens from `first` of the pass on, times all panels of the pass.
  template <int kTokenTiles>
  void sum_panels(int64_t pass_token, int64_t first, int64_t tokens, int panels, int64_t begin, int count) {
    const uint8_t* activations = job_.activations + (pass_token + first) * job_.stride + begin * 64;
    const int64_t tile = first / kTileTokens;
    const int64_t next = pass_token + first + tokens;
    for (int p = 0; p < panels; p += 2) {
      // Those that come next are fetched meanwhile: they lie too scattered for the hardware to foresee.
      prefetch(next + kTokenTiles * p, kTokenTiles * 2, begin, count);
      if (p + 1 < panels) {
        sum_tiles<kPlanes, kActivationPlanes, 2, kTokenTiles>(job_, memory_, activations, tile, p, count, begin == 0);
      } else {
        sum_tiles<kPlanes, kActivationPlanes, 1, kTokenTiles>(job_, memory_, activations, tile, p, count, begin == 0);
      }
    }
  }

  void prefetch(int64_t token, int tokens, int64_t begin, int count) const {
    for (int64_t t = token; t < token + tokens && t < job_.n; ++t) {
      for (int a = 0; a < kActivationPlanes; ++a) {
        const uint8_t* src = job_.activations + t * job_.stride + a * job_.plane_bytes + begin * 64;
        for (int b = 0; b < count; ++b) _mm_prefetch(src + b * 64, _MM_HINT_T0);
      }
    }
  }

  void store(int64_t token, int64_t n, int64_t panel, int panels) const {
    for (int64_t t = 0; t < n; ++t) {
      float* out = job_.out + (token + t) * job_.ldo + panel * kPanelRows;
      for (int p = 0; p < panels; ++p, out += kPanelRows) {
        const __mmask16 mask = row_mask(job_.row_end - (panel + p) * kPanelRows);
        _mm512_mask_storeu_ps(out, mask, _mm512_load_ps(memory_.sums[t / kTileTokens][p][t % kTileTokens]));
      }
    }
  }

  const TileJob& job_;
  TileMemory<kPlanes> memory_;
};

// While one panel is unpacked, what lies `stride` bytes behind it, in the next, is fetched.
inline void prefetch_behind(const uint8_t* begin, int n_bytes, int64_t stride) {
  for (int line = 0; line < n_bytes; line += 64) _mm_prefetch(begin + stride + line, _MM_HINT_T0);
}

// Sixteen words of one column, then of the next, as a line of a tile.
inline __m512i interleave_words(__m512i words) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, words);
}

// Numbers of two columns, a lane a row, as a line of a tile.
inline __m512i bf16_pairs(__m512 even, __m512 odd) {
  const __m512bh both = _mm512_cvtne2ps_pbh(odd, even);
  __m512i words;
  __builtin_memcpy(&words, &both, sizeof(words));
  return interleave_words(words);
}

// Four columns of unsigned codes, two lines of a tile: code * scale + shift.
inline void store_group(__m512i codes, __m512 scale, __m512 shift, uint8_t* lines) {
  const __m512i byte = _mm512_set1_epi32(0xFF);
  const __m512 c0 = _mm512_cvtepi32_ps(_mm512_and_si512(codes, byte));
  const __m512 c1 = _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(codes, 8), byte));
  const __m512 c2 = _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(codes, 16), byte));
  const __m512 c3 = _mm512_cvtepi32_ps(_mm512_srli_epi32(codes, 24));
  _mm512_store_si512(lines, bf16_pairs(_mm512_fmadd_ps(c0, scale, shift), _mm512_fmadd_ps(c1, scale, shift)));
  _mm512_store_si512(lines + 64, bf16_pairs(_mm512_fmadd_ps(c2, scale, shift), _mm512_fmadd_ps(c3, scale, shift)));
}

}  // namespace

}  // namespace nibble::kernel
