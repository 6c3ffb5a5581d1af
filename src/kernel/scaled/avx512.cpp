// The path of AVX-512: a few tokens stream the packed weights through registers, more meet a tile of 32 rows that is
// decoded once.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/scaled/unpack_avx512.h"

namespace nibble::kernel::scaled {

namespace {

constexpr int kStreamTokens = 8;  // that meet a vector of codes in registers
constexpr int kTileTokens = 12;   // 2 panels x 12 tokens of sums in registers
constexpr int kPrefetchBytes = 2048;

inline const float* x_of(const Job& job, int64_t token) {
  return reinterpret_cast<const float*>(job.x + token * job.x_stride);
}

// Writes the sums of one token and panel: the rows that exist.
inline void store(const Job& job, int64_t row, int64_t token, __m512 y) {
  if (job.geometry.has_global) {
    const uint8_t* panel = job.packed + row / kPanelRows * job.geometry.bytes;
    y = _mm512_div_ps(y, _mm512_loadu_ps(panel + job.geometry.globals_at));
  }
  _mm512_mask_storeu_ps(job.out + token * job.ldo + row, row_mask(job.row_end - row), y);
}

// Sums of kPanels panels and kN tokens from half `begin` to `end`, all in one group.
template <Form kForm, int kPanels, int kN>
[[gnu::always_inline]] inline void stream_part(const Job& job, const Decoder<kForm>& decoder, const uint8_t* panel,
                                               int64_t begin, int64_t end, __m512 (&s)[kPanels][kN]) {
  for (int64_t half = begin; half < end; ++half) {
    const uint8_t* codes = panel + job.geometry.codes_at + half_at<kForm>(half);
#pragma GCC unroll 4
    for (int v = 0; v < kHalfVectors; ++v) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        const uint8_t* at = codes + p * job.geometry.bytes;
        _mm_prefetch(at + v * 64 + kPrefetchBytes, _MM_HINT_T0);
        __m512 w[4];
        decoder.columns(at, v, half_bit<kForm>(half), w);
#pragma GCC unroll 8
        for (int t = 0; t < kN; ++t) {
          const float* x = x_of(job, t) + half * kHalfBlock + v * 4;
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) s[p][t] = _mm512_fmadd_ps(w[i], _mm512_set1_ps(x[i]), s[p][t]);
        }
      }
    }
  }
}

// kPanels panels side by side: memory gives more to several streams than to one, and more sums are under way.
template <Form kForm, int kPanels, int kN>
void stream_panels(const Job& job, int64_t row) {
  const Geometry& geometry = job.geometry;
  const Decoder<kForm> decoder;
  const uint8_t* panel = job.packed + row / kPanelRows * geometry.bytes;
  __m512 y[kPanels][kN];
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
    for (int t = 0; t < kN; ++t) y[p][t] = _mm512_setzero_ps();
  }
  for (int64_t begin = 0; begin < geometry.halves;) {
    const int64_t end = part_end(geometry, begin);
    __m512 s[kPanels][kN];
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
      for (int t = 0; t < kN; ++t) s[p][t] = _mm512_setzero_ps();
    }
    stream_part<kForm, kPanels, kN>(job, decoder, panel, begin, end, s);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const __m512 scale = load_scale(geometry.scale_type, panel + p * geometry.bytes, begin / geometry.group_halves);
#pragma GCC unroll 8
      for (int t = 0; t < kN; ++t) y[p][t] = _mm512_fmadd_ps(s[p][t], scale, y[p][t]);
    }
    begin = end;
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
    for (int t = 0; t < kN; ++t) store(job, row + p * kPanelRows, t, y[p][t]);
  }
}

template <Form kForm>
void stream(const Job& job) {
  using Stream = void (*)(const Job&, int64_t);
  static constexpr Stream kOnePanel[kStreamTokens] = {
      stream_panels<kForm, 1, 1>, stream_panels<kForm, 1, 2>, stream_panels<kForm, 1, 3>, stream_panels<kForm, 1, 4>,
      stream_panels<kForm, 1, 5>, stream_panels<kForm, 1, 6>, stream_panels<kForm, 1, 7>, stream_panels<kForm, 1, 8>};
  static constexpr Stream kManyPanels[kStreamTokens] = {
      stream_panels<kForm, 4, 1>, stream_panels<kForm, 2, 2>, stream_panels<kForm, 2, 3>, stream_panels<kForm, 2, 4>,
      stream_panels<kForm, 2, 5>, stream_panels<kForm, 2, 6>, stream_panels<kForm, 2, 7>, stream_panels<kForm, 2, 8>};
  const int panels = job.n == 1 ? 4 : 2;
  int64_t row = job.row_begin;
  for (; row + (panels - 1) * kPanelRows < job.row_end; row += panels * kPanelRows) kManyPanels[job.n - 1](job, row);
  for (; row < job.row_end; row += kPanelRows) kOnePanel[job.n - 1](job, row);
}

// A stretch of one or two panels, decoded, and the parts of groups in it.
template <int kPanels>
struct Tile {
  alignas(64) float weights[kStretch][kPanels][kPanelRows];
  __m512 scales[kStretchHalves][kPanels];
  int part_ends[kStretchHalves];  // halves
  int count;                      // halves
};

template <Form kForm, int kPanels>
void fill_tile(const Job& job, const uint8_t* panel, int64_t begin, Tile<kPanels>& tile) {
  const Geometry& geometry = job.geometry;
  const Decoder<kForm> decoder;
  const int64_t rest = geometry.halves - begin;
  tile.count = static_cast<int>(rest < kStretchHalves ? rest : kStretchHalves);
  for (int p = 0; p < kPanels; ++p, panel += geometry.bytes) {
    for (int h = 0; h < tile.count; ++h) {
      const uint8_t* codes = panel + geometry.codes_at + half_at<kForm>(begin + h);
      for (int v = 0; v < kHalfVectors; ++v) {
        __m512 w[4];
        decoder.columns(codes, v, half_bit<kForm>(begin + h), w);
        for (int i = 0; i < 4; ++i) _mm512_store_ps(tile.weights[h * kHalfBlock + v * 4 + i][p], w[i]);
      }
    }
    for (int h = 0, part = 0; h < tile.count; h = tile.part_ends[part++]) {
      tile.part_ends[part] = static_cast<int>(part_end(geometry, begin + h) - begin);
      tile.scales[part][p] = load_scale(geometry.scale_type, panel, (begin + h) / geometry.group_halves);
    }
  }
}

// Tokens and panels of one pass: activations of a stretch and sums stay in the second-level cache. Sums are kept apart
// from the output, whose rows lie so far apart that they crowd into few sets of the caches.
constexpr int64_t kPassTokens = 240;
constexpr int64_t kPassPanels = 8;
using Sums = __m512 (*)[2];  // of each token: of two panels

// A tile times kN tokens from `x` on, added to their sums (or written there, at the first columns of a row).
template <int kPanels, int kN>
void multiply(const Job& job, const Tile<kPanels>& tile, const uint8_t* x, bool first, Sums sums) {
  const int64_t stride = job.x_stride;
  for (int h = 0, part = 0; h < tile.count; ++part) {
    __m512 s[kPanels][kN];
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 12
      for (int t = 0; t < kN; ++t) s[p][t] = _mm512_setzero_ps();
    }
    for (int c = h * kHalfBlock; c < tile.part_ends[part] * kHalfBlock; ++c, x += 4) {
      __m512 w[kPanels];
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) w[p] = _mm512_load_ps(tile.weights[c][p]);
#pragma GCC unroll 12
      for (int t = 0; t < kN; ++t) {
        const __m512 value = broadcast_f32(x + t * stride);
#pragma GCC unroll 2
        for (int p = 0; p < kPanels; ++p) s[p][t] = _mm512_fmadd_ps(w[p], value, s[p][t]);
      }
    }
    h = tile.part_ends[part];
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 12
      for (int t = 0; t < kN; ++t) {
        const __m512 y = first && part == 0 ? _mm512_setzero_ps() : sums[t][p];
        sums[t][p] = _mm512_fmadd_ps(s[p][t], tile.scales[part][p], y);
      }
    }
  }
}

// A stretch of one or two panels from `row` on times tokens [first, first + n).
template <Form kForm, int kPanels>
void multiply_stretch(const Job& job, int64_t row, int64_t begin, int64_t first, int64_t n, Sums sums) {
  using Multiply = void (*)(const Job&, const Tile<kPanels>&, const uint8_t*, bool, Sums);
  static constexpr Multiply kMultiply[kTileTokens] = {
      multiply<kPanels, 1>, multiply<kPanels, 2>,  multiply<kPanels, 3>,  multiply<kPanels, 4>,
      multiply<kPanels, 5>, multiply<kPanels, 6>,  multiply<kPanels, 7>,  multiply<kPanels, 8>,
      multiply<kPanels, 9>, multiply<kPanels, 10>, multiply<kPanels, 11>, multiply<kPanels, 12>};
  Tile<kPanels> tile;
  fill_tile<kForm, kPanels>(job, job.packed + row / kPanelRows * job.geometry.bytes, begin, tile);
  const int64_t shares = (n + kTileTokens - 1) / kTileTokens;  // tokens are shared out evenly
  for (int64_t i = 0; i < shares; ++i) {
    const int64_t token = n * i / shares;
    const uint8_t* x = job.x + (first + token) * job.x_stride + begin * kHalfBlock * 4;
    kMultiply[n * (i + 1) / shares - token - 1](job, tile, x, begin == 0, sums + token);
  }
}

// Tokens [first, first + n), some panels at a time.
template <Form kForm>
void multiply_panels(const Job& job, int64_t first, int64_t n) {
  __m512 sums[kPassPanels / 2][kPassTokens][2];
  for (int64_t row = job.row_begin; row < job.row_end; row += kPassPanels * kPanelRows) {
    const int64_t end = row + kPassPanels * kPanelRows < job.row_end ? row + kPassPanels * kPanelRows : job.row_end;
    for (int64_t begin = 0; begin < job.geometry.halves; begin += kStretchHalves) {
      for (int64_t r = row, pair = 0; r < end; r += 2 * kPanelRows, ++pair) {
        const auto multiply = r + kPanelRows < end ? multiply_stretch<kForm, 2> : multiply_stretch<kForm, 1>;
        multiply(job, r, begin, first, n, sums[pair]);
      }
    }
    for (int64_t r = row; r < end; r += kPanelRows) {
      const int64_t panel = (r - row) / kPanelRows;
      for (int64_t t = 0; t < n; ++t) store(job, r, first + t, sums[panel / 2][t][panel % 2]);
    }
  }
}

template <Form kForm>
void compute(const Job& job) {
  if (job.n <= kStreamTokens) return stream<kForm>(job);
  for (int64_t first = 0; first < job.n; first += kPassTokens)
    multiply_panels<kForm>(job, first, job.n - first < kPassTokens ? job.n - first : kPassTokens);
}

}  // namespace

void compute_avx512(const Job& job) noexcept {
  static constexpr void (*kCompute[kFormCount])(const Job&) = {compute<kE4m3>, compute<kE5m2>, compute<kE2m1>};
  kCompute[job.geometry.form](job);
}

}  // namespace nibble::kernel::scaled
