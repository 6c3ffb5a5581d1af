#include <immintrin.h>
#include <stdint.h>

#include "kernel/dense/panel.h"

namespace nibble::kernel::dense {

namespace {

constexpr int kTokens = 12;  // 2 panels x 12 tokens of sums in registers
constexpr int kPrefetchBytes = 2048;

// Sixteen weights of one column.
template <Scalar kScalar>
inline __m512 load(const uint8_t* p) {
  if constexpr (kScalar == kF32) return _mm512_loadu_ps(p);
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  if constexpr (kScalar == kF16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

inline __mmask16 row_mask(int64_t rows) {
  return rows >= kPanelRows ? 0xFFFF : static_cast<__mmask16>((1 << rows) - 1);
}

// One stretch of one or two panels times kN tokens, added to `out` (or written to it, at the first stretch).
template <Scalar kScalar, int kPanels, int kN>
void multiply(const Job& job, int64_t row, int64_t begin, int64_t token) {
  constexpr int kBytes = kPanelRows * kScalarBytes[kScalar];
  const int count = static_cast<int>(job.cols - begin < kStretch ? job.cols - begin : kStretch);
  const int64_t panel_bytes = job.cols * kBytes;
  const uint8_t* w = job.packed + row / kPanelRows * panel_bytes + begin * kBytes;
  const uint8_t* x = job.x + token * job.x_stride + begin * 4;
  __m512 sum[kPanels][kN];
  for (int p = 0; p < kPanels; ++p) {
    for (int t = 0; t < kN; ++t) sum[p][t] = _mm512_setzero_ps();
  }
  for (int c = 0; c < count; ++c, w += kBytes, x += 4) {
    __m512 weights[kPanels];
    for (int p = 0; p < kPanels; ++p) {
      weights[p] = load<kScalar>(w + p * panel_bytes);
      if (kBytes == 64 || c % 2 == 0) _mm_prefetch(w + p * panel_bytes + kPrefetchBytes, _MM_HINT_T0);
    }
    for (int t = 0; t < kN; ++t) {
      const __m512 value = _mm512_set1_ps(*reinterpret_cast<const float*>(x + t * job.x_stride));
      for (int p = 0; p < kPanels; ++p) sum[p][t] = _mm512_fmadd_ps(weights[p], value, sum[p][t]);
    }
  }
  for (int p = 0; p < kPanels; ++p) {
    const __mmask16 mask = row_mask(job.row_end - row - p * kPanelRows);
    for (int t = 0; t < kN; ++t) {
      float* out = job.out + (token + t) * job.ldo + row + p * kPanelRows;
      if (begin > 0) sum[p][t] = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out), sum[p][t]);
      _mm512_mask_storeu_ps(out, mask, sum[p][t]);
    }
  }
}

template <Scalar kScalar, int kPanels>
void multiply_panels(const Job& job, int64_t row) {
  using Multiply = void (*)(const Job&, int64_t, int64_t, int64_t);
  static constexpr Multiply kMultiply[kTokens] = {
      multiply<kScalar, kPanels, 1>,  multiply<kScalar, kPanels, 2>,  multiply<kScalar, kPanels, 3>,
      multiply<kScalar, kPanels, 4>,  multiply<kScalar, kPanels, 5>,  multiply<kScalar, kPanels, 6>,
      multiply<kScalar, kPanels, 7>,  multiply<kScalar, kPanels, 8>,  multiply<kScalar, kPanels, 9>,
      multiply<kScalar, kPanels, 10>, multiply<kScalar, kPanels, 11>, multiply<kScalar, kPanels, 12>,
  };
  const int64_t shares = (job.n + kTokens - 1) / kTokens;  // tokens are shared out evenly
  for (int64_t begin = 0; begin < job.cols; begin += kStretch) {
    for (int64_t i = 0; i < shares; ++i) {
      const int64_t token = job.n * i / shares;
      kMultiply[job.n * (i + 1) / shares - token - 1](job, row, begin, token);
    }
  }
}

template <Scalar kScalar>
void compute(const Job& job) noexcept {
  int64_t row = job.row_begin;
  // One token: memory gives more to several streams than to two.
  for (; job.n == 1 && row + 3 * kPanelRows < job.row_end; row += 4 * kPanelRows) {
    for (int64_t begin = 0; begin < job.cols; begin += kStretch) multiply<kScalar, 4, 1>(job, row, begin, 0);
  }
  for (; row + kPanelRows < job.row_end; row += 2 * kPanelRows) multiply_panels<kScalar, 2>(job, row);
  if (row < job.row_end) multiply_panels<kScalar, 1>(job, row);
}

}  // namespace

const Compute kComputeAvx512[kScalarCount] = {compute<kF32>, compute<kF16>, compute<kBf16>};

}  // namespace nibble::kernel::dense
