// The path of AVX2: the two halves of a panel (8 rows each) side by side. The int8 product is maddubs, whose pairs of
// 16 bits must not overflow: small codes are summed there before widening, and codes of 8 bits go in, less 128, as
// magnitudes with their sign moved to the activation. Zeros enter as one more product, with the sums of activations.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/affine/panel.h"
#include "kernel/panel_avx2.h"

namespace nibble::kernel::affine {

namespace {

constexpr int kHalves = 2;
constexpr int kStreamTokens = 4;
constexpr int kTileTokens = 3;
constexpr int kPrefetchBytes = 2048;

template <int kP>
constexpr bool kSigned = bits_of(kPlanes[kP]) == 8;
// Groups of columns whose 16-bit sums fit: 2 * 127 * (2^bits - 1) each.
template <int kP>
constexpr int kGroupsPerSum = bits_of(kPlanes[kP]) == 8   ? 1
                              : bits_of(kPlanes[kP]) == 6 ? 2
                              : bits_of(kPlanes[kP]) == 5 ? 4
                                                          : 8;

template <int kP, int kG>
inline __m256i group(const uint8_t* block) {
  const __m256i code = code_group<kPlanes[kP].low_bits, kPlanes[kP].high_bits, kG>(block);
  return kSigned<kP> ? _mm256_xor_si256(code, _mm256_set1_epi8(static_cast<char>(0x80))) : code;
}

// The codes of half a block: unsigned, or less 128.
template <int kP>
inline void unpack(const uint8_t* block, __m256i (&w)[kGroups]) {
  w[0] = group<kP, 0>(block);
  w[1] = group<kP, 1>(block);
  w[2] = group<kP, 2>(block);
  w[3] = group<kP, 3>(block);
  w[4] = group<kP, 4>(block);
  w[5] = group<kP, 5>(block);
  w[6] = group<kP, 6>(block);
  w[7] = group<kP, 7>(block);
}

// What the rows of half a panel have in a group: scales, and what each 16-bit sum of activations is multiplied by.
struct Constants {
  __m256 scale;
  __m256i zero;
};

inline __m256 load_scales(ScaleType type, const uint8_t* scales, int64_t index) {
  switch (type) {
    case ScaleType::kF16:
      return load_f16(scales + index * 2);
    case ScaleType::kBf16: {
      const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + index * 2));
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
    }
    default:
      return _mm256_loadu_ps(reinterpret_cast<const float*>(scales) + index);
  }
}

template <int kP>
inline Constants load_constants(const Job& job, const uint8_t* panel, int64_t group, int half) {
  const int64_t index = group * kPanelRows + half * kHalfRows;
  const __m256i bias = _mm256_set1_epi16(kSigned<kP> ? 128 : 0);
  __m256i zero = _mm256_set1_epi16(static_cast<int16_t>(job.zero));
  if (job.zero < 0) {
    const auto* zeros = reinterpret_cast<const __m128i*>(panel + job.geometry.zeros_at + index);
    zero = _mm256_cvtepu8_epi32(_mm_loadl_epi64(zeros));
    zero = _mm256_or_si256(zero, _mm256_slli_epi32(zero, 16));
  }
  return {load_scales(job.scale_type, panel, index), _mm256_sub_epi16(bias, zero)};
}

inline __m256i sums_of(const Activations& a, int64_t token, int64_t block) {
  return broadcast(a.rows + token * a.stride + a.sums_at + block * 4);
}
inline __m256i widen(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

template <int kP>
inline __m256i product(__m256i w, __m256i magnitude, __m256i a) {
  return kSigned<kP> ? _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(a, w)) : _mm256_maddubs_epi16(w, a);
}

// The integer sum of half a block and one token, from `sum`.
template <int kP>
inline __m256i dot(const __m256i (&w)[kGroups], const int8_t* a, __m256i sum) {
  constexpr int kSumGroups = kGroupsPerSum<kP>;
  for (int first = 0; first < kGroups; first += kSumGroups) {
    __m256i pairs = _mm256_setzero_si256();
    for (int g = first; g < first + kSumGroups; ++g) {
      const __m256i some = product<kP>(w[g], _mm256_abs_epi8(w[g]), broadcast(a + g * 4));
      pairs = g == first ? some : _mm256_add_epi16(pairs, some);
    }
    sum = _mm256_add_epi32(sum, widen(pairs));
  }
  return sum;
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
    for (int64_t b = 0; b < geometry.blocks;) {
      const int64_t group = b / geometry.group_blocks;
      __m256i zero[kHalves];
      for (int h = 0; h < kHalves; ++h) zero[h] = load_constants<kP>(job, panel, group, h).zero;
      __m256 s[kHalves][kTokens] = {};
      for (const int64_t end = part_end(geometry, b); b < end; ++b, block += kBlockBytes) {
        for (int line = 0; line < kBlockBytes; line += 64) {
          _mm_prefetch(reinterpret_cast<const char*>(block + kPrefetchBytes + line), _MM_HINT_T0);
        }
        for (int h = 0; h < kHalves; ++h) {
          __m256i w[kGroups];
          unpack<kP>(block + h * 32, w);
          for (int t = 0; t < kTokens; ++t) {
            const __m256i start = _mm256_madd_epi16(zero[h], sums_of(a, t, b));
            const __m256 sum = _mm256_cvtepi32_ps(dot<kP>(w, codes_of(a, t) + b * kBlock, start));
            s[h][t] = _mm256_fmadd_ps(sum, _mm256_set1_ps(scales_of(a, t)[b]), s[h][t]);
          }
        }
      }
      for (int h = 0; h < kHalves; ++h) {
        const __m256 scale = load_constants<kP>(job, panel, group, h).scale;
        for (int t = 0; t < kTokens; ++t) y[h][t] = _mm256_fmadd_ps(s[h][t], scale, y[h][t]);
      }
    }
    store<kTokens>(job, 0, row, y);
  }
}

// A stretch of a panel, unpacked: the codes of its blocks, and the parts of groups in it.
struct Tile {
  alignas(32) uint8_t codes[kStretchBlocks][kGroups][kHalves][32];
  Constants constants[kStretchBlocks][kHalves];
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
    for (int h = 0; h < kHalves; ++h) {
      tile.constants[part][h] = load_constants<kP>(job, panel, (begin + b) / job.geometry.group_blocks, h);
    }
  }
}

// One block of a tile times kTokens tokens `stride` bytes apart, added to `sum`.
template <int kP, int kTokens>
inline void multiply_block(const uint8_t (&w)[kGroups][kHalves][32], const int8_t* a, int64_t stride,
                           __m256i (&sum)[kHalves][kTokens]) {
  constexpr int kSumGroups = kGroupsPerSum<kP>;
  // Unrolled, the loads move up and the sums out to memory.
#pragma GCC unroll 1
  for (int first = 0; first < kGroups; first += kSumGroups) {
    __m256i pairs[kHalves][kTokens];
#pragma GCC unroll 1
    for (int g = first; g < first + kSumGroups; ++g) {
      __m256i weights[kHalves];
      __m256i magnitude[kHalves];
      for (int h = 0; h < kHalves; ++h) {
        weights[h] = _mm256_load_si256(reinterpret_cast<const __m256i*>(w[g][h]));
        magnitude[h] = _mm256_abs_epi8(weights[h]);
      }
      for (int t = 0; t < kTokens; ++t) {
        const __m256i four = broadcast(a + t * stride + g * 4);
        for (int h = 0; h < kHalves; ++h) {
          const __m256i some = product<kP>(weights[h], magnitude[h], four);
          pairs[h][t] = g == first ? some : _mm256_add_epi16(pairs[h][t], some);
        }
      }
    }
    for (int t = 0; t < kTokens; ++t) {
      for (int h = 0; h < kHalves; ++h) sum[h][t] = _mm256_add_epi32(sum[h][t], widen(pairs[h][t]));
    }
  }
}

// A tile times kTokens tokens, added to the output (or written to it, at the first blocks of a row).
template <int kP, int kTokens>
void multiply(const Job& job, const Tile& tile, int64_t token, int64_t row, int64_t begin) {
  const Activations& a = job.activations;
  __m256 y[kHalves][kTokens] = {};
  for (int h = 0; h < kHalves && begin > 0; ++h) {
    const __m256i mask = row_mask(job.row_end - row - h * kHalfRows);
    for (int t = 0; t < kTokens; ++t) {
      y[h][t] = _mm256_maskload_ps(job.out + (token + t) * job.ldo + row + h * kHalfRows, mask);
    }
  }
  for (int b = 0, part = 0; b < tile.count; ++part) {
    __m256 s[kHalves][kTokens] = {};
    for (; b < tile.part_ends[part]; ++b) {
      __m256i sum[kHalves][kTokens];
      for (int t = 0; t < kTokens; ++t) {
        const __m256i sums = sums_of(a, token + t, begin + b);
        for (int h = 0; h < kHalves; ++h) sum[h][t] = _mm256_madd_epi16(tile.constants[part][h].zero, sums);
      }
      multiply_block<kP, kTokens>(tile.codes[b], codes_of(a, token) + (begin + b) * kBlock, a.stride, sum);
      for (int t = 0; t < kTokens; ++t) {
        const __m256 a_scale = _mm256_set1_ps(scales_of(a, token + t)[begin + b]);
        for (int h = 0; h < kHalves; ++h) s[h][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[h][t]), a_scale, s[h][t]);
      }
    }
    for (int h = 0; h < kHalves; ++h) {
      for (int t = 0; t < kTokens; ++t) y[h][t] = _mm256_fmadd_ps(s[h][t], tile.constants[part][h].scale, y[h][t]);
    }
  }
  store<kTokens>(job, token, row, y);
}

// All tokens, panel by panel.
template <int kP>
void multiply_panels(const Job& job) {
  using Multiply = void (*)(const Job&, const Tile&, int64_t, int64_t, int64_t);
  static constexpr Multiply kMultiply[kTileTokens] = {multiply<kP, 1>, multiply<kP, 2>, multiply<kP, 3>};
  const int64_t shares = (job.n + kTileTokens - 1) / kTileTokens;  // tokens are shared out evenly
  Tile tile;
  for (int64_t row = job.row_begin; row < job.row_end; row += kPanelRows) {
    const uint8_t* panel = job.packed + row / kPanelRows * job.geometry.bytes;
    for (int64_t begin = 0; begin < job.geometry.blocks; begin += kStretchBlocks) {
      fill_tile<kP>(job, panel, begin, tile);
      for (int64_t i = 0; i < shares; ++i) {
        const int64_t token = job.n * i / shares;
        const int64_t tokens = job.n * (i + 1) / shares - token;
        kMultiply[tokens - 1](job, tile, token, row, begin);
      }
    }
  }
}

template <int kP>
void compute(const Job& job) {
  static constexpr void (*kStream[kStreamTokens])(const Job&) = {stream<kP, 1>, stream<kP, 2>, stream<kP, 3>,
                                                                 stream<kP, 4>};
  if (job.n <= kStreamTokens) return kStream[job.n - 1](job);
  multiply_panels<kP>(job);
}

}  // namespace

void compute_avx2(const Job& job) noexcept {
  static constexpr void (*kByPlanes[kPlanesCount])(const Job&) = {compute<0>, compute<1>, compute<2>,
                                                                  compute<3>, compute<4>, compute<5>};
  kByPlanes[job.geometry.planes](job);
}

}  // namespace nibble::kernel::affine
