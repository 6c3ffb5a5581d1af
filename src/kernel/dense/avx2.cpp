#include <immintrin.h>
#include <stdint.h>

#include "kernel/dense/panel.h"

namespace nibble::kernel::dense {

namespace {

constexpr int kTokens = 6;  // 2 halves of a panel x 6 tokens of sums in registers
constexpr int kHalfRows = 8;
constexpr int kPrefetchBytes = 2048;
constexpr int64_t kChunkTokens = 252;  // whose values in a stretch take 252 KiB, half a second-level cache

// Eight weights of one column.
template <Scalar kScalar>
inline __m256 load(const uint8_t* p) {
  if constexpr (kScalar == kF32) return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  if constexpr (kScalar == kF16) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

inline __m256i row_mask(int64_t rows) {
  const int n = rows > kHalfRows ? kHalfRows : rows < 0 ? 0 : static_cast<int>(rows);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
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

// A stretch of kPanels panels from `row` times kN tokens, added to the output (or written to it, at the first stretch).
template <Scalar kScalar, int kPanels, int kN, bool kPrefetch>
void multiply(const Job& job, const uint8_t* w, int64_t across, int64_t row, int64_t begin, int count, int64_t token) {
  __m256 sum[2 * kPanels][kN];
#pragma GCC unroll 8
  for (int h = 0; h < 2 * kPanels; ++h) {
#pragma GCC unroll 8
    for (int t = 0; t < kN; ++t) sum[h][t] = _mm256_setzero_ps();
  }
  sum_columns<kScalar, kPanels, kN, kPrefetch>(w, across, job.x + token * job.x_stride + begin * 4, job.x_stride, count,
                                               sum);
#pragma GCC unroll 8
  for (int h = 0; h < 2 * kPanels; ++h) {
    const __m256i mask = row_mask(job.row_end - row - h * kHalfRows);
#pragma GCC unroll 8
    for (int t = 0; t < kN; ++t) {
      float* out = job.out + (token + t) * job.ldo + row + h * kHalfRows;
      if (begin > 0) sum[h][t] = _mm256_add_ps(_mm256_maskload_ps(out, mask), sum[h][t]);
      _mm256_maskstore_ps(out, mask, sum[h][t]);
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
      multiply<kScalar, kCount, kN, true>(job, w + begin * kBytes, across, row, begin, stretch_columns(job, begin),
                                          token);
    }
    row += kCount * kPanelRows;
  };
  while (job.row_end - row > (kPanels - 1) * kPanelRows) panels.template operator()<kPanels>();
  while (row < job.row_end) panels.template operator()<1>();
}

// Tokens [first, end), many: a stretch of a panel is decoded once for all of them, and their values in that stretch
// stay in the second-level cache for all panels.
template <Scalar kScalar>
void multiply_chunk(const Job& job, int64_t first, int64_t end) {
  using Multiply = void (*)(const Job&, const uint8_t*, int64_t, int64_t, int64_t, int, int64_t);
  static constexpr Multiply kMultiply[kTokens] = {multiply<kF32, 1, 1, false>, multiply<kF32, 1, 2, false>,
                                                  multiply<kF32, 1, 3, false>, multiply<kF32, 1, 4, false>,
                                                  multiply<kF32, 1, 5, false>, multiply<kF32, 1, 6, false>};
  constexpr int kBytes = kPanelRows * kScalarBytes[kScalar];
  alignas(32) float tile[kStretch][kPanelRows];
  const int64_t n = end - first;
  const int64_t shares = (n + kTokens - 1) / kTokens;  // tokens are shared out evenly
  for (int64_t begin = 0; begin < job.cols; begin += kStretch) {
    const int count = stretch_columns(job, begin);
    for (int64_t row = job.row_begin; row < job.row_end; row += kPanelRows) {
      const uint8_t* w = job.packed + (row / kPanelRows * job.cols + begin) * kBytes;
      for (int c = 0; c < count; ++c, w += kBytes) {
        _mm_prefetch(reinterpret_cast<const char*>(w + job.cols * kBytes), _MM_HINT_T0);  // the next panel's
        _mm256_store_ps(tile[c], load<kScalar>(w));
        _mm256_store_ps(tile[c] + kHalfRows, load<kScalar>(w + kBytes / 2));
      }
      for (int64_t i = 0; i < shares; ++i) {
        const int64_t token = n * i / shares;
        kMultiply[n * (i + 1) / shares - token - 1](job, reinterpret_cast<const uint8_t*>(tile), 0, row, begin, count,
                                                    first + token);
      }
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
