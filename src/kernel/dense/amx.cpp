// The path of AMX for many tokens: tiles of bf16, of which f16 weights take two and activations two, so that 16 bits of
// every number count.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/dense/panel.h"
#include "kernel/tile_amx.h"

namespace nibble::kernel::dense {

namespace {

// Two columns of the sixteen rows side by side; what lies behind the last column is zero.
inline __m512i load_columns(const uint8_t* panel, int64_t col, int64_t cols) {
  const __mmask32 mask = col + 1 < cols ? 0xFFFFFFFF : col < cols ? 0xFFFF : 0;
  return _mm512_maskz_loadu_epi16(mask, panel + col * kPanelRows * 2);
}

inline __m512 low_f32(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
inline __m512 high_f32(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xFFFF0000))));
}

void fill_bf16(const uint8_t* panel, int64_t cols, int64_t begin, int count, uint8_t* tiles) {
  for (int64_t col = begin * kBlock; col < (begin + count) * kBlock; col += 2, tiles += 64)
    _mm512_store_si512(tiles, interleave_words(load_columns(panel, col, cols)));
}

void fill_f16(const uint8_t* panel, int64_t cols, int64_t begin, int count, uint8_t* tiles) {
  for (int64_t col = begin * kBlock; col < (begin + count) * kBlock; col += 2, tiles += 64) {
    const __m512i columns = load_columns(panel, col, cols);
    const __m512 even = _mm512_cvtph_ps(_mm512_castsi512_si256(columns));
    const __m512 odd = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(columns, 1));
    const __m512i high = bf16_pairs(even, odd);
    _mm512_store_si512(tiles, high);
    _mm512_store_si512(tiles + kChunkBlocks * kTileBytes,
                       bf16_pairs(_mm512_sub_ps(even, low_f32(high)), _mm512_sub_ps(odd, high_f32(high))));
  }
}

template <Scalar kScalar>
void compute(const uint8_t* packed, int64_t cols, const TileJob& job) noexcept {
  constexpr bool kHalf = kScalar == kF16;
  TileProduct<kHalf ? 2 : 1, 2>(job).run([&](int64_t panel, int64_t begin, int count, uint8_t* tiles) {
    (kHalf ? fill_f16 : fill_bf16)(packed + panel * cols * kPanelRows * 2, cols, begin, count, tiles);
  });
}

}  // namespace

const ComputeTiles kComputeAmx[kScalarCount] = {nullptr, compute<kF16>, compute<kBf16>};

}  // namespace nibble::kernel::dense
