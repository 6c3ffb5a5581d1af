// The path of AVX2: the two halves of a panel (8 rows each) side by side. The int8 product is maddubs, whose pairs of
// 16 bits must not overflow: small codes are summed there before widening, and codes of 8 bits go in, less 128, as
// magnitudes with their sign moved to the activation. Zeros enter as one more product, with the sums of activations.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/affine/scales_avx2.h"

namespace nibble::kernel::affine {

namespace {

constexpr int kStreamTokens = 2;
constexpr int kPrefetchBytes = 2048;

inline __m256i sums_of(const Activations& a, int64_t token, int64_t block) {
  return broadcast(a.rows + token * a.stride + a.sums_at + block * 4);
}

template <int kTokens>
inline void store(const Job& job, int64_t token, int64_t row, const __m256 (&y)[kHalves][kTokens]) {
  for (int h = 0; h < kHalves; ++h) {
    const __m256i mask = row_mask(job.row_end - row - h * kHalfRows);
    for (int t = 0; t < kTokens; ++t) {
      _mm256_maskstore_ps(job.out + (token + t) * job.ldo + row + h * kHalfRows, mask, y[h][t]);
    }
  }
}

// Few tokens: every panel once, through registers.
template <int kP, int kTokens>
void stream(const Job& job) {
  constexpr int kBlockBytes = block_bytes(kPlanes[kP]);
  const Geometry& geometry = job.geometry;
  const Activations& a = job.activations;
  for (int64_t row = job.row_begin; row < job.row_end; row += kPanelRows) {
    const uint8_t* panel = job.packed + row / kPanelRows * geometry.bytes;
    const uint8_t* block = panel + geometry.codes_at;
    __m256 y[kHalves][kTokens] = {};
    __m256 s[kHalves][kTokens] = {};
    __m256i zero[kHalves];
    int64_t group = 0;
    int64_t end = 0;
    for (int64_t b = 0; b < geometry.blocks; ++b, block += kBlockBytes) {
      if (b == end) {  // a new part begins
        group = b / geometry.group_blocks;
        end = part_end(geometry, b);
        for (int h = 0; h < kHalves; ++h) zero[h] = load_zero<kP>(job, panel, group, h);
      }
      prefetch(block + kPrefetchBytes, kBlockBytes);
      for (int h = 0; h < kHalves; ++h) {
        __m256i w[kGroups];
        unpack<kP>(block + h * 32, w);
        for (int t = 0; t < kTokens; ++t) {
          const __m256i start = _mm256_madd_epi16(zero[h], sums_of(a, t, b));
          const __m256 sum = _mm256_cvtepi32_ps(dot<kProducts<kP>>(w, codes_of(a, t) + b * kBlock, start));
          s[h][t] = _mm256_fmadd_ps(sum, _mm256_set1_ps(scales_of(a, t)[b]), s[h][t]);
        }
      }
      if (b + 1 < end) continue;
      for (int h = 0; h < kHalves; ++h) {
        const __m256 scale = load_scale(job, panel, group, h);
        for (int t = 0; t < kTokens; ++t) {
          y[h][t] = _mm256_fmadd_ps(s[h][t], scale, y[h][t]);
          s[h][t] = _mm256_setzero_ps();
        }
      }
    }
    store<kTokens>(job, 0, row, y);
  }
}

// A stretch of a panel, unpacked: the codes of its blocks, and the parts of groups in it.
struct Tile {
  alignas(32) uint8_t codes[kStretchBlocks][kGroups][kHalves][32];
  __m256 scales[kStretchBlocks][kHalves];
  __m256i zeros[kStretchBlocks][kHalves];
  int part_ends[kStretchBlocks];
  int count;  // blocks
};

template <int kP>
void fill_tile(const Job& job, const uint8_t* panel, int64_t begin, Tile& tile) {
  constexpr int kBlockBytes = block_bytes(kPlanes[kP]);
  const int64_t rest = job.geometry.blocks - begin;
  tile.count = static_cast<int>(rest < kStretchBlocks ? rest : kStretchBlocks);
  const uint8_t* block = panel + job.geometry.codes_at + begin * kBlockBytes;
  for (int b = 0; b < tile.count; ++b, block += kBlockBytes) {
    for (int h = 0; h < kHalves; ++h) {
      __m256i w[kGroups];
      unpack<kP>(block + h * 32, w);
      for (int g = 0; g < kGroups; ++g) _mm256_store_si256(reinterpret_cast<__m256i*>(tile.codes[b][g][h]), w[g]);
    }
  }
  for (int b = 0, part = 0; b < tile.count; b = tile.part_ends[part++]) {
    tile.part_ends[part] = static_cast<int>(part_end(job.geometry, begin + b) - begin);
    const int64_t group = (begin + b) / job.geometry.group_blocks;
    for (int h = 0; h < kHalves; ++h) {
      tile.scales[part][h] = load_scale(job, panel, group, h);
      tile.zeros[part][h] = load_zero<kP>(job, panel, group, h);
    }
  }
}

// A tile times kTokens tokens, added to their sums (or written there, at the first blocks of a row). `next`: where the
// codes of the next tile lie, to be fetched meanwhile, or null.
template <int kP, int kTokens>
void multiply(const Job& job, const Tile& tile, float (*sums)[kHalves][kHalfRows], int64_t token, int64_t begin,
              const uint8_t* next) {
  constexpr int kBlockBytes = block_bytes(kPlanes[kP]);
  const Activations& a = job.activations;
  __m256 y[kHalves][kTokens] = {};
  for (int h = 0; h < kHalves && begin > 0; ++h) {
    for (int t = 0; t < kTokens; ++t) y[h][t] = _mm256_load_ps(sums[t][h]);
  }
  __m256 s[kHalves][kTokens] = {};
  for (int b = 0, part = 0; b < tile.count; ++b) {
    if (next != nullptr) prefetch(next + b * kBlockBytes, kBlockBytes);
    __m256i sum[kHalves][kTokens];
    dot_panel<kProducts<kP>, kTokens>(tile.codes[b], codes_of(a, token) + (begin + b) * kBlock, a.stride, sum);
    for (int t = 0; t < kTokens; ++t) {
      const __m256i a_sums = sums_of(a, token + t, begin + b);
      const __m256 a_scale = _mm256_set1_ps(scales_of(a, token + t)[begin + b]);
      for (int h = 0; h < kHalves; ++h) {
        const __m256i zeros = _mm256_madd_epi16(tile.zeros[part][h], a_sums);
        s[h][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(sum[h][t], zeros)), a_scale, s[h][t]);
      }
    }
    if (b + 1 < tile.part_ends[part]) continue;
    for (int h = 0; h < kHalves; ++h) {
      for (int t = 0; t < kTokens; ++t) {
        y[h][t] = _mm256_fmadd_ps(s[h][t], tile.scales[part][h], y[h][t]);
        s[h][t] = _mm256_setzero_ps();
      }
    }
    ++part;
  }
  for (int h = 0; h < kHalves; ++h) {
    for (int t = 0; t < kTokens; ++t) _mm256_store_ps(sums[t][h], y[h][t]);
  }
}

// Tokens [first, end), panel by panel.
template <int kP>
void multiply_panels(const Job& job, int64_t first, int64_t end) {
  using Multiply = void (*)(const Job&, const Tile&, float(*)[kHalves][kHalfRows], int64_t, int64_t, const uint8_t*);
  static constexpr Multiply kMultiply[kTileTokens] = {multiply<kP, 1>, multiply<kP, 2>, multiply<kP, 3>,
                                                      multiply<kP, 4>, multiply<kP, 5>, multiply<kP, 6>};
  const int64_t n = end - first;
  Tile tile;
  alignas(32) PanelSums sums;
  for (int64_t row = job.row_begin; row < job.row_end; row += kPanelRows) {
    const uint8_t* panel = job.packed + row / kPanelRows * job.geometry.bytes;
    for (int64_t begin = 0; begin < job.geometry.blocks; begin += kStretchBlocks) {
      fill_tile<kP>(job, panel, begin, tile);
      const uint8_t* next = panel + job.geometry.codes_at + (begin + kStretchBlocks) * block_bytes(kPlanes[kP]);
      for_token_shares<kTileTokens>(n, [&](int64_t token, int64_t tokens) {
        kMultiply[tokens - 1](job, tile, sums + token, first + token, begin, token == 0 ? next : nullptr);
      });
    }
    store_sums(sums, n, job.out + first * job.ldo + row, job.ldo, job.row_end - row);
  }
}

template <int kP>
void compute(const Job& job) {
  if (job.n == 1) return stream<kP, 1>(job);
  if (job.n == kStreamTokens) return stream<kP, kStreamTokens>(job);
  const int64_t chunk = chunk_tokens(job.activations.stride);
  for (int64_t first = 0; first < job.n; first += chunk) {
    multiply_panels<kP>(job, first, first + chunk < job.n ? first + chunk : job.n);
  }
}

}  // namespace

void compute_avx2(const Job& job) noexcept {
  static constexpr void (*kByPlanes[kPlanesCount])(const Job&) = {compute<0>, compute<1>, compute<2>,
                                                                  compute<3>, compute<4>, compute<5>};
  kByPlanes[job.geometry.planes](job);
}

}  // namespace nibble::kernel::affine
