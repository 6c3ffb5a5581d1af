// The path of AVX2 for activations with one scale for a row: codes and activations are widened to 16 bits, two columns
// at a time, where their products are exact whatever the codes.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/affine/scales_avx2.h"

namespace nibble::kernel::affine {

namespace {

constexpr int kMostTokens = 4;
constexpr int kPrefetchBytes = 2048;

inline __m256i load_zero(const RowsJob& job, const uint8_t* panel, int64_t group, int half) {
  if (job.zero >= 0) return _mm256_set1_epi32(job.zero);
  const uint8_t* zeros = panel + job.geometry.zeros_at + group * kPanelRows + half * kHalfRows;
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(zeros)));
}

// Group kG of columns of half a block times kTokens tokens, whose codes of the block are at `a`.
template <int kP, int kG, int kTokens>
inline void add_group(const uint8_t* block, const uint8_t* a, int64_t stride, __m256i (&dot)[kTokens]) {
  const __m256i w = code_group<kPlanes[kP].low_bits, kPlanes[kP].high_bits, kG>(block);
  const __m256i even = _mm256_and_si256(w, _mm256_set1_epi16(0xFF)), odd = _mm256_srli_epi16(w, 8);
  for (int t = 0; t < kTokens; ++t) {
    const __m256i four = broadcast(a + t * stride + kG * 4);
    const __m256i low = _mm256_srai_epi16(_mm256_slli_epi16(four, 8), 8), high = _mm256_srai_epi16(four, 8);
    const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(even, low), _mm256_madd_epi16(odd, high));
    dot[t] = _mm256_add_epi32(dot[t], sum);
  }
}

template <int kP, int kTokens>
inline void add_block(const uint8_t* block, const uint8_t* a, int64_t stride, __m256i (&dot)[kTokens]) {
  add_group<kP, 0>(block, a, stride, dot);
  add_group<kP, 1>(block, a, stride, dot);
  add_group<kP, 2>(block, a, stride, dot);
  add_group<kP, 3>(block, a, stride, dot);
  add_group<kP, 4>(block, a, stride, dot);
  add_group<kP, 5>(block, a, stride, dot);
  add_group<kP, 6>(block, a, stride, dot);
  add_group<kP, 7>(block, a, stride, dot);
}

// The values of one column of half a panel.
template <int kP>
__m256 column_values(const RowsJob& job, const uint8_t* panel, int64_t column, int half) {
  constexpr CodePlanes kCodes = kPlanes[kP];
  const int64_t block = column / kBlock, group = block / job.geometry.group_blocks;
  const CodePlace place = code_place(kCodes, static_cast<int>(column % kBlock / 4));
  const uint8_t* codes = panel + job.geometry.codes_at + block * block_bytes(kCodes) + half * 32;
  const int byte = static_cast<int>(column % 4) * 8;
  const auto bits = [&](int vector, int bit, int count) {
    const __m256i shifted = _mm256_srl_epi32(load(codes + vector * 64), _mm_cvtsi32_si128(byte + bit));
    return _mm256_and_si256(shifted, _mm256_set1_epi32((1 << count) - 1));
  };
  __m256i code = bits(place.low_vector, place.low_bit, kCodes.low_bits);
  if constexpr (kCodes.high_bits > 0) {
    const __m256i high = bits(place.high_vector, place.high_bit, kCodes.high_bits);
    code = _mm256_or_si256(code, _mm256_slli_epi32(high, kCodes.low_bits));
  }
  const __m256i level = _mm256_sub_epi32(code, load_zero(job, panel, group, half));
  return _mm256_mul_ps(load_scale(job, panel, group, half), _mm256_cvtepi32_ps(level));
}

// From the sums over the parts of half a panel to the output of a token.
template <int kP>
__m256 finish_row(const RowsJob& job, const uint8_t* panel, int64_t token, int half, __m256 y) {
  const I8Rows& a = job.activations;
  const I8RowHeader& header = header_of(a, token);
  const __m256 row_sums =
      _mm256_loadu_ps(reinterpret_cast<const float*>(panel + job.geometry.row_sums_at) + half * kHalfRows);
  __m256 kept = _mm256_setzero_ps();
  const int64_t beside = job.geometry.kept;
  for (int64_t i = 0; i < header.kept; ++i) {
    const __m256 values = i < beside ? load_f16(panel + job.geometry.kept_at + (i * kPanelRows + half * kHalfRows) * 2)
                                     : column_values<kP>(job, panel, kept_columns(a, token)[i], half);
    kept = _mm256_fmadd_ps(_mm256_set1_ps(kept_values(a, token)[i]), values, kept);
  }
  y = _mm256_fnmadd_ps(_mm256_set1_ps(header.zero), row_sums, y);
  return _mm256_fmadd_ps(y, _mm256_set1_ps(header.scale), kept);
}

// Half a panel times kTokens tokens from `first` on.
template <int kP, int kTokens>
void multiply(const RowsJob& job, const uint8_t* panel, int64_t first, int64_t row, int half) {
  constexpr int kBlockBytes = block_bytes(kPlanes[kP]);
  const Geometry& geometry = job.geometry;
  const int64_t stride = job.activations.stride;
  const uint8_t* a = job.activations.rows + first * stride;
  const uint8_t* block = panel + geometry.codes_at + half * 32;
  __m256 y[kTokens] = {};
  for (int64_t begin = 0, end = 0; begin < geometry.blocks; begin = end) {
    end = part_end(geometry, begin);
    const int64_t group = begin / geometry.group_blocks;
    const __m256i zero = load_zero(job, panel, group, half);
    __m256i dot[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      const int32_t* sums = sums_of(job.activations, first + t);
      dot[t] = _mm256_mullo_epi32(zero, _mm256_set1_epi32(sums[begin] - sums[end]));
    }
    for (int64_t b = begin; b < end; ++b, block += kBlockBytes) {
      if (half == 0) prefetch(block + kPrefetchBytes, kBlockBytes);
      add_block<kP>(block, a + b * kBlock, stride, dot);
    }
    const __m256 scale = load_scale(job, panel, group, half);
    for (int t = 0; t < kTokens; ++t) y[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[t]), scale, y[t]);
  }
  const __m256i mask = row_mask(job.row_end - row - half * kHalfRows);
  float* out = job.out + first * job.ldo + row + half * kHalfRows;
  for (int t = 0; t < kTokens; ++t)
    _mm256_maskstore_ps(out + t * job.ldo, mask, finish_row<kP>(job, panel, first + t, half, y[t]));
}

template <int kP>
void compute(const RowsJob& job) {
  using Multiply = void (*)(const RowsJob&, const uint8_t*, int64_t, int64_t, int);
  static constexpr Multiply kMultiply[kMostTokens] = {multiply<kP, 1>, multiply<kP, 2>, multiply<kP, 3>,
                                                      multiply<kP, 4>};
  for (int64_t row = job.row_begin; row < job.row_end; row += kPanelRows) {
    const uint8_t* panel = job.packed + row / kPanelRows * job.geometry.bytes;
    for_token_shares<kMostTokens>(job.n, [&](int64_t first, int64_t tokens) {
      for (int half = 0; half < kHalves; ++half) kMultiply[tokens - 1](job, panel, first, row, half);
    });
  }
}

}  // namespace

void compute_rows_avx2(const RowsJob& job) noexcept {
  static constexpr void (*kByPlanes[kPlanesCount])(const RowsJob&) = {compute<0>, compute<1>, compute<2>,
                                                                      compute<3>, compute<4>, compute<5>};
  kByPlanes[job.geometry.planes](job);
}

}  // namespace nibble::kernel::affine
