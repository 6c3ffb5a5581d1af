// The path of AMX for many tokens: panels unpacked to tiles of bf16 with their scales applied. Weights and activations
// are rounded to 8 bits of mantissa each, which loses far less than int8 activations do.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/blocks/panel.h"
#include "kernel/blocks/unpack_avx512.h"
#include "kernel/tile_amx.h"

namespace nibble::kernel::blocks {

namespace {

template <int kFormat>
inline void fill(const uint8_t* panel, int64_t panel_bytes, int64_t begin, int count, __m512i levels, uint8_t* tiles) {
  constexpr Format kF = kFormats[kFormat];
  constexpr int kSubs = kBlock / kF.sub;
  constexpr int kSuperBytes = kF.header_bytes + kSuperBlocks * kF.block_bytes;
  const uint8_t* header = panel + begin / kSuperBlocks * kSuperBytes;
  int in_super = static_cast<int>(begin % kSuperBlocks);
  for (int b = 0; b < count; header += kSuperBytes, in_super = 0) {
    const Super super = load_super<kFormat>(header);
    prefetch_behind(header, kF.header_bytes, panel_bytes);
    for (; in_super < kSuperBlocks && b < count; ++in_super, ++b, tiles += kTileBytes) {
      const uint8_t* block = header + kF.header_bytes + in_super * kF.block_bytes;
      prefetch_behind(block, kF.block_bytes, panel_bytes);
      __m512i w[kGroups];
      unpack<kFormat>(block, levels, w);
      for (int s = 0; s < kSubs; ++s) {
        __m512 scale;
        __m512 min = _mm512_setzero_ps();
        load_scale<kFormat>(header, super, in_super * kSubs + s, scale, min);
        const __m512 shift = kF.has_min ? _mm512_sub_ps(_mm512_setzero_ps(), min)
                                        : _mm512_mul_ps(scale, _mm512_set1_ps(static_cast<float>(-kF.offset)));
        for (int g = s * kGroups / kSubs; g < (s + 1) * kGroups / kSubs; ++g)
          store_group(w[g], scale, shift, tiles + g * 128);
      }
    }
  }
}

template <int kFormat>
void compute(const TileWeights& weights, const TileJob& job) noexcept {
  const __m512i levels = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(weights.levels)));
  TileProduct<1, 1>(job).run([&](int64_t panel, int64_t begin, int count, uint8_t* tiles) {
    fill<kFormat>(weights.packed + panel * weights.panel_bytes, weights.panel_bytes, begin, count, levels, tiles);
  });
}

}  // namespace

const ComputeTiles kComputeAmx[kFormatCount] = {
    compute<0>, compute<1>, compute<2>, compute<3>,  compute<4>,  compute<5>,  compute<6>,
    compute<7>, compute<8>, compute<9>, compute<10>, compute<11>, compute<12>,
};

}  // namespace nibble::kernel::blocks
