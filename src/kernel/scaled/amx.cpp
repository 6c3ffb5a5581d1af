// The path of AMX for many tokens: panels unpacked to tiles of bf16 with their scales applied.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/scaled/unpack_avx512.h"
#include "kernel/tile_amx.h"

namespace nibble::kernel::scaled {

namespace {

template <Form kForm>
void fill(const Geometry& geometry, const uint8_t* panel, int64_t begin, int count, uint8_t* tiles) {
  constexpr int kHalfTile = kTileBytes / 2;
  const Decoder<kForm> decoder;
  const uint8_t* codes = panel + geometry.codes_at;
  __m512 inverse = _mm512_set1_ps(1);
  if (geometry.has_global) inverse = _mm512_div_ps(inverse, _mm512_loadu_ps(panel + geometry.globals_at));
  for (int64_t half = begin * 2; half < (begin + count) * 2;) {
    const int64_t group = half / geometry.group_halves;
    const __m512 scale = _mm512_mul_ps(load_scale(geometry.scale_type, panel, group), inverse);
    for (const int64_t end = part_end(geometry, half); half < end; ++half, tiles += kHalfTile) {
      const uint8_t* at = codes + half_at<kForm>(half);
      prefetch_behind(at, kHalfBytes, geometry.bytes);
      for (int v = 0; v < kHalfVectors; ++v) {
        __m512 w[4];
        decoder.columns(at, v, half_bit<kForm>(half), w);
        for (__m512& each : w) each = _mm512_mul_ps(each, scale);
        _mm512_store_si512(tiles + v * 128, bf16_pairs(w[0], w[1]));
        _mm512_store_si512(tiles + v * 128 + 64, bf16_pairs(w[2], w[3]));
      }
    }
  }
}

static_assert(kChunkBlocks * 2 % kStretchHalves == 0);  // parts end with the chunk

template <Form kForm>
void compute(const Geometry& geometry, const uint8_t* packed, const TileJob& job) {
  TileProduct<1, 1>(job).run([&](int64_t panel, int64_t begin, int count, uint8_t* tiles) {
    fill<kForm>(geometry, packed + panel * geometry.bytes, begin, count, tiles);
  });
}

}  // namespace

void compute_amx(const Geometry& geometry, const uint8_t* packed, const TileJob& job) noexcept {
  using Compute = void (*)(const Geometry&, const uint8_t*, const TileJob&);
  static constexpr Compute kCompute[kFormCount] = {compute<kE4m3>, compute<kE5m2>, compute<kE2m1>};
  kCompute[geometry.form](geometry, packed, job);
}

}  // namespace nibble::kernel::scaled
