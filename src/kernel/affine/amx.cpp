// The path of AMX for many tokens: panels unpacked to tiles of bf16 with their scales applied.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/affine/scales_avx512.h"
#include "kernel/tile_amx.h"

namespace nibble::kernel::affine {

namespace {

// A value of a group is code * scale + shift.
struct GroupScale {
  __m512 scale, shift;
};

GroupScale load_group(const PanelWeights& weights, const uint8_t* panel, int64_t group) {
  GroupScale at;
  at.scale = load_scale(weights.scale_type, panel, group);
  const __m512 zero = _mm512_cvtepi32_ps(load_zero(weights.zero, panel + weights.geometry.zeros_at, group));
  at.shift = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(zero, at.scale));
  return at;
}

template <int kP>
void fill(const PanelWeights& weights, int64_t panel_index, int64_t begin, int count, uint8_t* tiles) {
  constexpr CodePlanes kCodes = kPlanes[kP];
  const Geometry& geometry = weights.geometry;
  const uint8_t* panel = weights.packed + panel_index * geometry.bytes;
  const uint8_t* block = panel + geometry.codes_at + begin * block_bytes(kCodes);
  GroupScale at = load_group(weights, panel, begin / geometry.group_blocks);
  for (int64_t b = begin; b < begin + count; ++b, block += block_bytes(kCodes), tiles += kTileBytes) {
    if (b % geometry.group_blocks == 0) at = load_group(weights, panel, b / geometry.group_blocks);
    prefetch_behind(block, block_bytes(kCodes), geometry.bytes);
    __m512i w[kGroups];
    unpack_codes<kCodes.low_bits, kCodes.high_bits>(block, w);
    for (int g = 0; g < kGroups; ++g) store_group(w[g], at.scale, at.shift, tiles + g * 128);
  }
}

template <int kP>
void compute(const PanelWeights& weights, const TileJob& job) {
  TileProduct<1, 1>(job).run(
      [&](int64_t panel, int64_t begin, int count, uint8_t* tiles) { fill<kP>(weights, panel, begin, count, tiles); });
}

}  // namespace

void compute_amx(const PanelWeights& weights, const TileJob& job) noexcept {
  using Compute = void (*)(const PanelWeights&, const TileJob&);
  static constexpr Compute kCompute[kPlanesCount] = {compute<0>, compute<1>, compute<2>,
                                                     compute<3>, compute<4>, compute<5>};
  kCompute[weights.geometry.planes](weights, job);
}

}  // namespace nibble::kernel::affine
