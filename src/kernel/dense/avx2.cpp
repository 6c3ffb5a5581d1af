#include <immintrin.h>
#include <stdint.h>

#include "kernel/dense/panel.h"
#include "kernel/panel_avx2.h"

namespace nibble::kernel::dense {

namespace {

constexpr int kTokens = 6;  // 2 halves of a panel x 6 tokens of sums in registers
constexpr int kPrefetchBytes = 2048;
// Tokens whose values in a stretch take 252 KiB, half a second-level cache, and panels whose sums for them stay there
// too.
constexpr int64_t kChunkTokens = 252;
constexpr int64_t kChunkPanels = 8;

// Eight weights of one column.
template <Scalar kScalar>
inline __m256 load(const uint8_t* p) {
  if constexpr (kScalar == kF32) return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  if constexpr (kScalar == kF16) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

// Sums of kPanels panels and kN tokens over `count` columns: `w` the first panel's weights, `across` bytes before the
// next one's, `x` the first token's values.
template <Scalar kScalar, int kPanels, int kN, bool kPrefetch>
[[gnu::always_inline]] inline void sum_columns(const uint8_t* w, int64_t across, const uint8_t* x, int64_t x_stride,
                                               int count, __m256 (&sum)[2 * kPanels][kN]) {
  constexpr int kBytes = kPanelRows * kScalarBytes[kScalar];
  for (int c = 0; c < count; ++c, w += kBytes, x += 4) {
    __m256 weights[2 * kPanels];
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) {
      const uint8_t* panel = w + p * across;
      if (kPrefetch) _mm_prefetch(reinterpret_cast<const char*>(panel + kPrefetchBytes), _MM_HINT_T0);
      weights[2 * p] = load<kScalar>(panel);
      weights[2 * p + 1] = load<kScalar>(panel + kBytes / 2);
    }
#pragma GCC unroll 8
    for (int t = 0; t < kN; ++t) {
      const __m256 value = _mm256_broadcast_ss(reinterpret_cast<const float*>(x + t * x_stride));
#pragma GCC unroll 8
      for (int h = 0; h < 2 * kPanels; ++h) sum[h][t] = _mm256_fmadd_ps(weights[h], value, sum[h][t]);
    }
  }
}

// Where sums go: those of a token `ldo` after the token's before, of panels from a first row on, `rows` of which exist.
struct Out {
  float* sums;
  int64_t ldo;
  int64_t rows;
};

// A stretch of kPanels panels times kN tokens, added to the sums (or written there, at the first stretch).
template <Scalar kScalar, int kPanels, int kN, bool kPrefetch>
void multiply(const uint8_t* w, int64_t across, const uint8_t* x, int64_t x_stride, int count, bool first, Out out) {
  __m256 sum[2 * kPanels][kN];
#pragma GCC unroll 8
  for (int h = 0; h < 2 * kPanels; ++h) {
#pragma GCC unroll 8
    for (int t = 0; t < kN; ++t) sum[h][t] = _mm256_setzero_ps();
  }
  sum_columns<kScalar, kPanels, kN, kPrefetch>(w, across, x, x_stride, count, sum);
#pragma GCC unroll 8
  for (int h = 0; h < 2 * kPanels; ++h) {
    const __m256i mask = row_mask(out.rows - h * kHalfRows);
#pragma GCC unroll 8
    for (int t = 0; t < kN; ++t) {
      float* to = out.sums + t * out.ldo + h * kHalfRows;
      if (!first) sum[h][t] = _mm256_add_ps(_mm256_maskload_ps(to, mask), sum[h][t]);
      _mm256_maskstore_ps(to, mask, sum[h][t]);
    }
  }
}

inline int stretch_columns(const Job& job, int64_t begin) {
  return static_cast<int>(job.cols - begin < kStretch ? job.cols - begin : kStretch);
}

// Few tokens: weights straight from memory, two panels at a time so that more sums are under way.
template <Scalar kScalar, int kN>
void stream(const Job& job, int64_t token) {
  constexpr int kBytes = kPanelRows * kScalarBytes[kScalar];
  constexpr int kPanels = kN <= 2 ? 2 : 1;
  const int64_t across = job.cols * kBytes;
  int64_t row = job.row_begin;
  const auto panels = [&]<int kCount>() {
    const uint8_t* w = job.packed + row / kPanelRows * across;
    for (int64_t begin = 0; begin < job.cols; begin += kStretch) {
      multiply<kScalar, kCount, kN, true>(w + begin * kBytes, across, job.x + token * job.x_stride + begin * 4,
                                          job.x_stride, stretch_columns(job, begin), begin == 0,
                                          {job.out + token * job.ldo + row, job.ldo, job.row_end - row});
    }
    row += kCount * kPanelRows;
  };
  while (job.row_end - row > (kPanels - 1) * kPanelRows) panels.template operator()<kPanels>();
  while (row < job.row_end) panels.template operator()<1>();
}

// Sums of a chunk. Kept apart from the output, whose rows lie so far apart that they crowd into few sets of the caches.
using ChunkSums = float[kChunkPanels][kChunkTokens][2][kHalfRows];

// A stretch of one panel, decoded once, times `n` tokens.
template <Scalar kScalar>
void multiply_stretch(const Job& job, const uint8_t* w, const uint8_t* x, int64_t n, int count, bool first,
                      float (*sums)[2][kHalfRows]) {
  using Multiply = void (*)(const uint8_t*, int64_t, const uint8_t*, int64_t, int, bool, Out);
  static constexpr Multiply kMultiply[kTokens] = {multiply<kF32, 1, 1, false>, multiply<kF32, 1, 2, false>,
                                                  multiply<kF32, 1, 3, false>, multiply<kF32, 1, 4, false>,
                                                  multiply<kF32, 1, 5, false>, multiply<kF32, 1, 6, false>};
  constexpr int kBytes = kPanelRows * kScalarBytes[kScalar];
  alignas(32) float tile[kStretch][kPanelRows];
  for (int c = 0; c < count; ++c, w += kBytes) {
    _mm_prefetch(reinterpret_cast<const char*>(w + job.cols * kBytes), _MM_HINT_T0);  // the next panel's
    _mm256_store_ps(tile[c], load<kScalar>(w));
    _mm256_store_ps(tile[c] + kHalfRows, load<kScalar>(w + kBytes / 2));
  }
  for_token_shares<kTokens>(n, [&](int64_t token, int64_t tokens) {
    kMultiply[tokens - 1](reinterpret_cast<const uint8_t*>(tile), 0, x + token * job.x_stride, job.x_stride, count,
                          first, {sums[token][0], kPanelRows, kPanelRows});
  });
}

// Tokens [first, end), many: their values in a stretch stay in the second-level cache for a few panels.
template <Scalar kScalar>
void multiply_chunk(const Job& job, int64_t first, int64_t end) {
  constexpr int kBytes = kPanelRows * kScalarBytes[kScalar];
  alignas(32) ChunkSums sums;
  const uint8_t* x = job.x + first * job.x_stride;
  for (int64_t row = job.row_begin; row < job.row_end; row += kChunkPanels * kPanelRows) {
    const int64_t rows = job.row_end - row < kChunkPanels * kPanelRows ? job.row_end - row : kChunkPanels * kPanelRows;
    for (int64_t begin = 0; begin < job.cols; begin += kStretch) {
      for (int64_t r = 0; r < rows; r += kPanelRows) {
        const uint8_t* w = job.packed + ((row + r) / kPanelRows * job.cols + begin) * kBytes;
        multiply_stretch<kScalar>(job, w, x + begin * 4, end - first, stretch_columns(job, begin), begin == 0,
                                  sums[r / kPanelRows]);
      }
    }
    for (int64_t r = 0; r < rows; r += kPanelRows) {
      store_sums(sums[r / kPanelRows], end - first, job.out + first * job.ldo + row + r, job.ldo, rows - r);
    }
  }
}

template <Scalar kScalar>
void compute(const Job& job) noexcept {
  using Stream = void (*)(const Job&, int64_t);
  static constexpr Stream kStream[kTokens] = {stream<kScalar, 1>, stream<kScalar, 2>, stream<kScalar, 3>,
                                              stream<kScalar, 4>, stream<kScalar, 5>, stream<kScalar, 6>};
  if (job.n <= 2 * kTokens) {  // weights read twice are faster than decoded into a tile for so few
    const int64_t half = job.n > kTokens ? job.n / 2 : job.n;
    kStream[half - 1](job, 0);
    if (half < job.n) kStream[job.n - half - 1](job, half);
    return;
  }
  for (int64_t first = 0; first < job.n; first += kChunkTokens) {
    multiply_chunk<kScalar>(job, first, first + kChunkTokens < job.n ? first + kChunkTokens : job.n);
  }
}

}  // namespace

const Compute kComputeAvx2[kScalarCount] = {compute<kF32>, compute<kF16>, compute<kBf16>};

}  // namespace nibble::kernel::dense
