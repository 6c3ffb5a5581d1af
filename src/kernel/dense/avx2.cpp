#include <immintrin.h>
#include <stdint.h>

#include "kernel/dense/panel.h"

namespace nibble::kernel::dense {

namespace {

constexpr int kTokens = 6;  // 2 halves of a panel x 6 tokens of sums in registers
constexpr int kHalfRows = 8;
constexpr int kPrefetchBytes = 2048;

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

// One stretch of a panel times kN tokens, added to `out` (or written to it, at the first stretch).
template <Scalar kScalar, int kN>
void multiply(const Job& job, int64_t row, int64_t begin, int64_t token) {
  constexpr int kBytes = kPanelRows * kScalarBytes[kScalar];
  const int count = static_cast<int>(job.cols - begin < kStretch ? job.cols - begin : kStretch);
  const uint8_t* w = job.packed + (row / kPanelRows * job.cols + begin) * kBytes;
  const uint8_t* x = job.x + token * job.x_stride + begin * 4;
  __m256 sum[2][kN];
  for (int h = 0; h < 2; ++h) {
    for (int t = 0; t < kN; ++t) sum[h][t] = _mm256_setzero_ps();
  }
  for (int c = 0; c < count; ++c, w += kBytes, x += 4) {
    _mm_prefetch(reinterpret_cast<const char*>(w + kPrefetchBytes), _MM_HINT_T0);
    const __m256 weights[2] = {load<kScalar>(w), load<kScalar>(w + kBytes / 2)};
    for (int t = 0; t < kN; ++t) {
      const __m256 value = _mm256_broadcast_ss(reinterpret_cast<const float*>(x + t * job.x_stride));
      for (int h = 0; h < 2; ++h) sum[h][t] = _mm256_fmadd_ps(weights[h], value, sum[h][t]);
    }
  }
  for (int h = 0; h < 2; ++h) {
    const __m256i mask = row_mask(job.row_end - row - h * kHalfRows);
    for (int t = 0; t < kN; ++t) {
      float* out = job.out + (token + t) * job.ldo + row + h * kHalfRows;
      if (begin > 0) sum[h][t] = _mm256_add_ps(_mm256_maskload_ps(out, mask), sum[h][t]);
      _mm256_maskstore_ps(out, mask, sum[h][t]);
    }
  }
}

template <Scalar kScalar>
void compute(const Job& job) noexcept {
  using Multiply = void (*)(const Job&, int64_t, int64_t, int64_t);
  static constexpr Multiply kMultiply[kTokens] = {multiply<kScalar, 1>, multiply<kScalar, 2>, multiply<kScalar, 3>,
                                                  multiply<kScalar, 4>, multiply<kScalar, 5>, multiply<kScalar, 6>};
  const int64_t shares = (job.n + kTokens - 1) / kTokens;  // tokens are shared out evenly
  for (int64_t row = job.row_begin; row < job.row_end; row += kPanelRows) {
    for (int64_t begin = 0; begin < job.cols; begin += kStretch) {
      for (int64_t i = 0; i < shares; ++i) {
        const int64_t token = job.n * i / shares;
        kMultiply[job.n * (i + 1) / shares - token - 1](job, row, begin, token);
      }
    }
  }
}

}  // namespace

const Compute kComputeAvx2[kScalarCount] = {compute<kF32>, compute<kF16>, compute<kBf16>};

}  // namespace nibble::kernel::dense
