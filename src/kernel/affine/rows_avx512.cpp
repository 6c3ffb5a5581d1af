// The path of AVX-512 with VNNI for activations with one scale for a row: the products of a part of the row are summed
// in 32 bits, so that nothing but they is left in the inner loop.
#include "kernel/affine/rows_avx512.h"

namespace nibble::kernel::affine {

namespace {

constexpr int kMostTokens = 6;  // 2 panels x 6 tokens: 12 integer and 12 float sums in registers
constexpr int kPrefetchBytes = 2048;

// Adds the blocks [begin, end) of a part, whose codes are at `block`, times the tokens of `rows` to the sums y.
template <int kP, int kPanels, int kTokens>
inline void add_part(const RowsJob& job, const uint8_t* panel, const uint8_t* block, int64_t begin, int64_t end,
                     const uint8_t* const (&rows)[kTokens], __m512 (&y)[kPanels][kTokens]) {
  constexpr CodePlanes kCodes = kPlanes[kP];
  constexpr int kBlockBytes = block_bytes(kCodes);
  const Geometry& geometry = job.geometry;
  const int64_t group = begin / geometry.group_blocks;
  __m512i dot[kPanels][kTokens];
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    const __m512i zero = load_zero(job.zero, panel + p * geometry.bytes + geometry.zeros_at, group);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const auto* sums = reinterpret_cast<const int32_t*>(rows[t] + job.activations.sums_at);
      dot[p][t] = _mm512_mullo_epi32(zero, _mm512_set1_epi32(sums[begin] - sums[end]));
    }
  }
  for (int64_t b = begin; b < end; ++b, block += kBlockBytes) {
    __m512i w[kPanels][kGroups];
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const uint8_t* codes = block + p * geometry.bytes;
      for (int line = 0; line < kBlockBytes; line += 64) _mm_prefetch(codes + kPrefetchBytes + line, _MM_HINT_T0);
      unpack_codes<kCodes.low_bits, kCodes.high_bits>(codes, w[p]);
    }
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const __m512i four = broadcast(rows[t] + b * kBlock + g * 4);
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) dot[p][t] = _mm512_dpbusd_epi32(dot[p][t], w[p][g], four);
      }
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    const __m512 scale = load_scale(job.scale_type, panel + p * geometry.bytes, group);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) y[p][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[p][t]), scale, y[p][t]);
  }
}

// kPanels panels from row `row` on times kTokens tokens from `first` on.
template <int kP, int kPanels, int kTokens>
void multiply(const RowsJob& job, int64_t first, int64_t row) {
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
    add_part<kP, kPanels, kTokens>(job, panel, panel + geometry.codes_at + begin * block_bytes(kPlanes[kP]), begin, end,
                                   rows, y);
    begin = end;
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    const __mmask16 mask = row_mask(job.row_end - row - p * kPanelRows);
    float* out = job.out + first * job.ldo + row + p * kPanelRows;
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const uint8_t* of = panel + p * geometry.bytes;
      __m512 kept = _mm512_setzero_ps();
      for (int64_t i = 0; i < header_of(job.activations, first + t).kept; ++i)
        kept = add_kept<kP>(job, of, kept_input(job, first + t, i), kept);
      _mm512_mask_storeu_ps(out + t * job.ldo, mask, finish_row(job, of, first + t, y[p][t], kept));
    }
  }
}

// All tokens times kPanels panels, in even shares.
template <int kP, int kPanels>
void multiply_panels(const RowsJob& job, int64_t row) {
  using Multiply = void (*)(const RowsJob&, int64_t, int64_t);
  static constexpr Multiply kMultiply[kMostTokens] = {multiply<kP, kPanels, 1>, multiply<kP, kPanels, 2>,
                                                      multiply<kP, kPanels, 3>, multiply<kP, kPanels, 4>,
                                                      multiply<kP, kPanels, 5>, multiply<kP, kPanels, 6>};
  const int64_t shares = (job.n + kMostTokens - 1) / kMostTokens;
  for (int64_t i = 0; i < shares; ++i) {
    const int64_t first = job.n * i / shares;
    kMultiply[job.n * (i + 1) / shares - first - 1](job, first, row);
  }
}

template <int kP>
void compute(const RowsJob& job) {
  int64_t row = job.row_begin;
  // Memory gives more to several streams than to one.
  for (; job.n == 1 && row + 3 * kPanelRows < job.row_end; row += 4 * kPanelRows) multiply<kP, 4, 1>(job, 0, row);
  for (; row + kPanelRows < job.row_end; row += 2 * kPanelRows) multiply_panels<kP, 2>(job, row);
  if (row < job.row_end) multiply_panels<kP, 1>(job, row);
}

}  // namespace

void compute_rows_avx512(const RowsJob& job) noexcept {
  static constexpr void (*kByPlanes[kPlanesCount])(const RowsJob&) = {compute<0>, compute<1>, compute<2>,
                                                                      compute<3>, compute<4>, compute<5>};
  kByPlanes[job.geometry.planes](job);
}

}  // namespace nibble::kernel::affine
