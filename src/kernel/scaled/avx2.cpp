// The path of AVX2: a few tokens stream the packed weights through registers, more meet a tile of 16 rows that is
// decoded once.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/scaled/unpack_avx2.h"

namespace nibble::kernel::scaled {

namespace {

constexpr int kStreamTokens = 3;
constexpr int kPrefetchBytes = 2048;

// Half a panel times one token, divided by the global scale.
inline __m256 finish(const Geometry& geometry, const uint8_t* panel, int half, __m256 y) {
  if (!geometry.has_global) return y;
  const auto* globals = reinterpret_cast<const float*>(panel + geometry.globals_at);
  return _mm256_div_ps(y, _mm256_loadu_ps(globals + half * kHalfRows));
}

// Sums of kPanels panels and kN tokens from half `begin` to `end`, all in one group.
template <Form kForm, int kPanels, int kN>
[[gnu::always_inline]] inline void stream_part(const Job& job, const Decoder<kForm>& decoder, const uint8_t* panel,
                                               int64_t begin, int64_t end, __m256 (&s)[kPanels * kHalves][kN]) {
  for (int64_t half = begin; half < end; ++half) {
    const uint8_t* codes = panel + job.geometry.codes_at + half_at<kForm>(half);
    const uint8_t* x = job.x + half * kHalfBlock * 4;
    for (int v = 0; v < kHalfVectors; ++v) {
#pragma GCC unroll 4
      for (int h = 0; h < kPanels * kHalves; ++h) {
        const uint8_t* at = codes + h / kHalves * job.geometry.bytes;
        if (h % kHalves == 0) _mm_prefetch(reinterpret_cast<const char*>(at + v * 64 + kPrefetchBytes), _MM_HINT_T0);
        __m256 w[4];
        decoder.columns(at, v, h % kHalves, half_bit<kForm>(half), w);
#pragma GCC unroll 4
        for (int t = 0; t < kN; ++t) {
          const auto* four = reinterpret_cast<const float*>(x + t * job.x_stride) + v * 4;
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) s[h][t] = _mm256_fmadd_ps(w[i], _mm256_broadcast_ss(four + i), s[h][t]);
        }
      }
    }
  }
}

// kPanels panels side by side, so that more sums are under way.
template <Form kForm, int kPanels, int kN>
void stream_panels(const Job& job, int64_t row) {
  const Geometry& geometry = job.geometry;
  const Decoder<kForm> decoder;
  const uint8_t* panel = job.packed + row / kPanelRows * geometry.bytes;
  __m256 y[kPanels * kHalves][kN] = {};
  for (int64_t begin = 0; begin < geometry.halves;) {
    const int64_t end = part_end(geometry, begin);
    __m256 s[kPanels * kHalves][kN];
#pragma GCC unroll 4
    for (int h = 0; h < kPanels * kHalves; ++h) {
#pragma GCC unroll 4
      for (int t = 0; t < kN; ++t) s[h][t] = _mm256_setzero_ps();
    }
    stream_part<kForm, kPanels, kN>(job, decoder, panel, begin, end, s);
#pragma GCC unroll 4
    for (int h = 0; h < kPanels * kHalves; ++h) {
      const uint8_t* at = panel + h / kHalves * geometry.bytes;
      const __m256 scale = load_scale(geometry.scale_type, at, begin / geometry.group_halves, h % kHalves);
#pragma GCC unroll 4
      for (int t = 0; t < kN; ++t) y[h][t] = _mm256_fmadd_ps(s[h][t], scale, y[h][t]);
    }
    begin = end;
  }
  for (int h = 0; h < kPanels * kHalves; ++h) {
    const uint8_t* at = panel + h / kHalves * geometry.bytes;
    const __m256i mask = row_mask(job.row_end - row - h * kHalfRows);
    for (int t = 0; t < kN; ++t)
      _mm256_maskstore_ps(job.out + t * job.ldo + row + h * kHalfRows, mask,
                          finish(geometry, at, h % kHalves, y[h][t]));
  }
}

template <Form kForm, int kN>
void stream(const Job& job) {
  constexpr int kPanels = kN == 1 ? 2 : 1;
  int64_t row = job.row_begin;
  for (; row + (kPanels - 1) * kPanelRows < job.row_end; row += kPanels * kPanelRows)
    stream_panels<kForm, kPanels, kN>(job, row);
  if (row < job.row_end) stream_panels<kForm, 1, kN>(job, row);
}

// A stretch of a panel, decoded, and the parts of groups in it.
struct Tile {
  alignas(32) float weights[kStretch][kHalves][kHalfRows];
  __m256 scales[kStretchHalves][kHalves];
  int part_ends[kStretchHalves];  // halves of blocks
  int count;                      // halves of blocks
};

template <Form kForm>
void fill_tile(const Job& job, const uint8_t* panel, int64_t begin, Tile& tile) {
  const Geometry& geometry = job.geometry;
  const Decoder<kForm> decoder;
  const int64_t rest = geometry.halves - begin;
  tile.count = static_cast<int>(rest < kStretchHalves ? rest : kStretchHalves);
  for (int b = 0; b < tile.count; ++b) {
    const uint8_t* codes = panel + geometry.codes_at + half_at<kForm>(begin + b);
    for (int v = 0; v < kHalfVectors; ++v) {
      for (int h = 0; h < kHalves; ++h) {
        __m256 w[4];
        decoder.columns(codes, v, h, half_bit<kForm>(begin + b), w);
        for (int i = 0; i < 4; ++i) _mm256_store_ps(tile.weights[b * kHalfBlock + v * 4 + i][h], w[i]);
      }
    }
  }
  for (int b = 0, part = 0; b < tile.count; b = tile.part_ends[part++]) {
    tile.part_ends[part] = static_cast<int>(part_end(geometry, begin + b) - begin);
    for (int h = 0; h < kHalves; ++h)
      tile.scales[part][h] = load_scale(geometry.scale_type, panel, (begin + b) / geometry.group_halves, h);
  }
}

// Tokens and panels of one pass: activations of a stretch and sums stay in the second-level cache. Sums are kept apart
// from the output, whose rows lie so far apart that they crowd into few sets of the caches.
constexpr int64_t kPassTokens = 240;
constexpr int64_t kPassPanels = 8;
using Sums = float (*)[kHalves][kHalfRows];  // of each token

// A tile times kN tokens from `x` on, added to their sums (or written there, at the first columns of a row).
template <int kN>
void multiply(const Job& job, const Tile& tile, const uint8_t* x, bool first, Sums sums) {
  const int64_t stride = job.x_stride;
  for (int b = 0, part = 0; b < tile.count; ++part) {
    __m256 s[kHalves][kN];
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
#pragma GCC unroll 8
      for (int t = 0; t < kN; ++t) s[h][t] = _mm256_setzero_ps();
    }
    for (int c = b * kHalfBlock; c < tile.part_ends[part] * kHalfBlock; ++c, x += 4) {
      const __m256 w[kHalves] = {_mm256_load_ps(tile.weights[c][0]), _mm256_load_ps(tile.weights[c][1])};
#pragma GCC unroll 8
      for (int t = 0; t < kN; ++t) {
        const __m256 value = _mm256_broadcast_ss(reinterpret_cast<const float*>(x + t * stride));
#pragma GCC unroll 2
        for (int h = 0; h < kHalves; ++h) s[h][t] = _mm256_fmadd_ps(w[h], value, s[h][t]);
      }
    }
    b = tile.part_ends[part];
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
#pragma GCC unroll 8
      for (int t = 0; t < kN; ++t) {
        const __m256 y = first && part == 0 ? _mm256_setzero_ps() : _mm256_load_ps(sums[t][h]);
        _mm256_store_ps(sums[t][h], _mm256_fmadd_ps(s[h][t], tile.scales[part][h], y));
      }
    }
  }
}

// Tokens [first, first + n), some panels at a time.
template <Form kForm>
void multiply_panels(const Job& job, int64_t first, int64_t n) {
  using Multiply = void (*)(const Job&, const Tile&, const uint8_t*, bool, Sums);
  static constexpr Multiply kMultiply[kTileTokens] = {multiply<1>, multiply<2>, multiply<3>,
                                                      multiply<4>, multiply<5>, multiply<6>};
  const Geometry& geometry = job.geometry;
  alignas(32) float sums[kPassPanels][kPassTokens][kHalves][kHalfRows];
  Tile tile;
  for (int64_t row = job.row_begin; row < job.row_end; row += kPassPanels * kPanelRows) {
    const uint8_t* panel = job.packed + row / kPanelRows * geometry.bytes;
    const int64_t rest = (job.row_end - row + kPanelRows - 1) / kPanelRows;
    const int64_t panels = rest < kPassPanels ? rest : kPassPanels;
    for (int64_t begin = 0; begin < geometry.halves; begin += kStretchHalves) {
      for (int64_t p = 0; p < panels; ++p) {
        fill_tile<kForm>(job, panel + p * geometry.bytes, begin, tile);
        for_token_shares<kTileTokens>(n, [&](int64_t token, int64_t tokens) {
          const uint8_t* x = job.x + (first + token) * job.x_stride + begin * kHalfBlock * 4;
          kMultiply[tokens - 1](job, tile, x, begin == 0, sums[p] + token);
        });
      }
    }
    for (int64_t p = 0; p < panels; ++p, panel += geometry.bytes) {
      for (int64_t t = 0; t < n && geometry.has_global; ++t) {
        for (int h = 0; h < kHalves; ++h)
          _mm256_store_ps(sums[p][t][h], finish(geometry, panel, h, _mm256_load_ps(sums[p][t][h])));
      }
      const int64_t at = row + p * kPanelRows;
      store_sums(sums[p], n, job.out + first * job.ldo + at, job.ldo, job.row_end - at);
    }
  }
}

template <Form kForm>
void compute(const Job& job) {
  static constexpr void (*kStream[kStreamTokens])(const Job&) = {stream<kForm, 1>, stream<kForm, 2>, stream<kForm, 3>};
  if (job.n <= kStreamTokens) return kStream[job.n - 1](job);
  for (int64_t first = 0; first < job.n; first += kPassTokens)
    multiply_panels<kForm>(job, first, job.n - first < kPassTokens ? job.n - first : kPassTokens);
}

}  // namespace

void compute_avx2(const Job& job) noexcept {
  static constexpr void (*kCompute[kFormCount])(const Job&) = {compute<kE4m3>, compute<kE5m2>, compute<kE2m1>};
  kCompute[job.geometry.form](job);
}

}  // namespace nibble::kernel::scaled
