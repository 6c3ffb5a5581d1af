// The path of AVX2: as avx512.cpp, on the two halves of a panel (8 rows) one after the other. The int8 product is
// maddubs, whose pairs of 16 bits must not overflow: small codes are summed there before widening, and codes of 8 bits
// go in as magnitudes with their sign moved to the activation.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/blocks/panel.h"
#include "kernel/panel_avx2.h"

namespace nibble::kernel::blocks {

namespace {

constexpr int kStreamBlocks = 256;
constexpr int kTileBlocks = 16;  // of 16 rows: 8 KiB of codes
constexpr int kPrefetchBytes = 2048;

template <int kFormat>
constexpr bool kSignedLevels = kFormats[kFormat].level_bits == 8;

// Most tokens for which reading a panel's codes from memory for each half is faster than unpacking them into a tile.
template <int kFormat>
constexpr int kStreamTokens = kSignedLevels<kFormat> ? 6 : 3;

template <int kFormat>
constexpr Products kProducts = products_of(kFormats[kFormat].level_bits, kSignedLevels<kFormat>,
                                           kFormats[kFormat].sub / 4);

// Columns 4G..4G+3 of half a block: levels + offset, or signed levels for the types of kSignedLevels.
template <int kFormat, int kG>
inline __m256i group(const uint8_t* block, __m256i levels) {
  constexpr Format kF = kFormats[kFormat];
  __m256i code = code_group<kF.low_bits, kF.high_bits, kG>(block);
  if constexpr (kF.table) code = _mm256_shuffle_epi8(levels, code);
  return kSignedLevels<kFormat> ? _mm256_xor_si256(code, _mm256_set1_epi8(static_cast<char>(0x80))) : code;
}

template <int kFormat>
inline void unpack(const uint8_t* block, __m256i levels, __m256i (&w)[kGroups]) {
  w[0] = group<kFormat, 0>(block, levels);
  w[1] = group<kFormat, 1>(block, levels);
  w[2] = group<kFormat, 2>(block, levels);
  w[3] = group<kFormat, 3>(block, levels);
  w[4] = group<kFormat, 4>(block, levels);
  w[5] = group<kFormat, 5>(block, levels);
  w[6] = group<kFormat, 6>(block, levels);
  w[7] = group<kFormat, 7>(block, levels);
}

inline __m128i load_bytes(const uint8_t* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); }
inline __m256 unsigned_to_f32(__m128i x) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(x)); }
inline __m256 signed_to_f32(__m128i x) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)); }
// Half of 2^(code - 127), as encoding/e2m1.h has it; below 255.
inline __m256 half_e8m0(__m128i codes) {
  const __m256i power = _mm256_slli_epi32(_mm256_cvtepu8_epi32(codes), 23);
  return _mm256_mul_ps(_mm256_castsi256_ps(_mm256_max_epi32(power, _mm256_set1_epi32(0x00400000))),
                       _mm256_set1_ps(0.5f));
}

// Scale and min of sub-block `sub` of a super-block, for the rows from `first`.
template <int kFormat>
inline void load_scale(const uint8_t* header, int first, int sub, __m256& scale, __m256& min) {
  constexpr Format kF = kFormats[kFormat];
  if constexpr (kF.e2m1) {
    scale = half_e8m0(load_bytes(header + sub * kPanelRows + first));
  } else if constexpr (!kF.super_scales) {
    scale = load_f16(header + sub * 32 + first * 2);
    if constexpr (kF.has_min) min = load_f16(header + kF.mins_at + sub * 32 + first * 2);
  } else {
    const __m256 d = load_f16(header + first * 2);
    const __m128i scales = load_bytes(header + kF.scales_at + sub * kPanelRows + first);
    if constexpr (!kF.has_min) {
      scale = _mm256_mul_ps(d, signed_to_f32(scales));
    } else {
      const __m256 dmin = load_f16(header + 32 + first * 2);
      const __m128i low = _mm_set1_epi8(15);
      const __m128i mins = kF.nibble_scales ? _mm_and_si128(_mm_srli_epi16(scales, 4), low)
                                            : load_bytes(header + kF.mins_at + sub * kPanelRows + first);
      scale = _mm256_mul_ps(d, unsigned_to_f32(kF.nibble_scales ? _mm_and_si128(scales, low) : scales));
      min = _mm256_mul_ps(dmin, unsigned_to_f32(mins));
    }
  }
}

template <int kFormat>
constexpr int kSuperBytes = kFormats[kFormat].header_bytes + kSuperBlocks* kFormats[kFormat].block_bytes;
template <int kFormat>
constexpr int kTileBytes = kTileBlocks / kSuperBlocks* kSuperBytes<kFormat>;  // packed

// What the activations alone contribute to each sub-block of blocks [begin, begin + count), begin a multiple of 16:
// a_scale * sum a as f32 for types with mins, else -offset * sum a, where the integer sums start. May write up to 8
// blocks more than asked.
template <int kFormat>
inline void correct(const Activations& a, int64_t token, int64_t begin, int count, int32_t* out) {
  constexpr Format kF = kFormats[kFormat];
  const uint8_t* sums = a.rows + token * a.stride + a.sums_at + begin * 4;
  const float* scales = scales_of(a, token) + begin;
  for (int b = 0; b < count; b += 8, sums += 32, scales += 8) {
    const __m256 scale = _mm256_loadu_ps(scales);
    __m256i sum[2];
    __m256 scale_of_sum[2] = {scale, scale};
    if constexpr (kF.sub == 32) {
      sum[0] = _mm256_madd_epi16(load(sums), _mm256_set1_epi16(1));
    } else {
      sum[0] = _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sums)));
      sum[1] = _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sums + 16)));
      scale_of_sum[0] = _mm256_permutevar8x32_ps(scale, _mm256_set_epi32(3, 3, 2, 2, 1, 1, 0, 0));
      scale_of_sum[1] = _mm256_permutevar8x32_ps(scale, _mm256_set_epi32(7, 7, 6, 6, 5, 5, 4, 4));
    }
    for (int i = 0; i < kBlock / kF.sub; ++i, out += 8) {
      if constexpr (kF.has_min) {
        _mm256_storeu_ps(reinterpret_cast<float*>(out), _mm256_mul_ps(scale_of_sum[i], _mm256_cvtepi32_ps(sum[i])));
      } else {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_mullo_epi32(sum[i], _mm256_set1_epi32(-kF.offset)));
      }
    }
  }
}

// Adds one sub-block's product to y, as panel.h orders it. `correction` is what correct() wrote.
template <int kFormat>
inline __m256 add_block(__m256 y, const __m256i* w, const int8_t* a, float a_scale, __m256 scale, __m256 min,
                        const int32_t* correction) {
  constexpr bool kHasMin = kFormats[kFormat].has_min;
  const __m256i start = kHasMin || kSignedLevels<kFormat> ? _mm256_setzero_si256() : _mm256_set1_epi32(*correction);
  const __m256 product = _mm256_cvtepi32_ps(dot<kProducts<kFormat>>(w, a, start));
  y = _mm256_fmadd_ps(_mm256_mul_ps(product, _mm256_set1_ps(a_scale)), scale, y);
  if constexpr (kHasMin) {
    float a_sum;
    __builtin_memcpy(&a_sum, correction, 4);
    y = _mm256_fnmadd_ps(min, _mm256_set1_ps(a_sum), y);
  }
  return y;
}

// Few tokens: every panel once, through registers.
template <int kFormat, int kTokens>
void stream(const Job& job) {
  constexpr Format kF = kFormats[kFormat];
  constexpr int kSubs = kBlock / kF.sub;
  alignas(32) int32_t corrections[kTokens][kStreamBlocks * kSubs];
  const __m256i levels = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(job.levels)));
  for (int64_t begin = 0; begin < job.blocks; begin += kStreamBlocks) {
    const int count = static_cast<int>(job.blocks - begin < kStreamBlocks ? job.blocks - begin : kStreamBlocks);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) correct<kFormat>(job.activations, t, begin, count, corrections[t]);
    for (int64_t row = job.row_begin; row < job.row_end; row += kPanelRows) {
      const uint8_t* header =
          job.packed + row / kPanelRows * job.panel_bytes + begin / kSuperBlocks * kSuperBytes<kFormat>;
      __m256 y[2][kTokens];
#pragma GCC unroll 8
      for (int h = 0; h < 2; ++h) {
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
          const float* out = job.out + t * job.ldo + row + h * kHalfRows;
          y[h][t] =
              begin == 0 ? _mm256_setzero_ps() : _mm256_maskload_ps(out, row_mask(job.row_end - row - h * kHalfRows));
        }
      }
      for (int b = 0; b < count; header += kSuperBytes<kFormat>) {
        const uint8_t* block = header + kF.header_bytes;
        const int end = count - b < kSuperBlocks ? count : b + kSuperBlocks;
        for (int in_super = 0; b < end; ++b, ++in_super, block += kF.block_bytes) {
          prefetch(block + kPrefetchBytes, kF.block_bytes);
#pragma GCC unroll 8
          for (int h = 0; h < 2; ++h) {
            __m256i w[kGroups];
            unpack<kFormat>(block + h * 32, levels, w);
            for (int s = 0; s < kSubs; ++s) {
              __m256 scale;
              __m256 min = _mm256_setzero_ps();
              load_scale<kFormat>(header, h * kHalfRows, in_super * kSubs + s, scale, min);
#pragma GCC unroll 8
              for (int t = 0; t < kTokens; ++t) {
                y[h][t] = add_block<kFormat>(
                    y[h][t], w + s * (kF.sub / 4), codes_of(job.activations, t) + (begin + b) * kBlock + s * kF.sub,
                    scales_of(job.activations, t)[begin + b], scale, min, &corrections[t][b * kSubs + s]);
              }
            }
          }
        }
      }
#pragma GCC unroll 8
      for (int h = 0; h < 2; ++h) {
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
          float* out = job.out + t * job.ldo + row + h * kHalfRows;
          _mm256_maskstore_ps(out, row_mask(job.row_end - row - h * kHalfRows), y[h][t]);
        }
      }
    }
  }
}

// Unpacked weights of a panel.
template <int kFormat>
struct Tile {
  static constexpr int kSubs = kBlock / kFormats[kFormat].sub;
  alignas(32) uint8_t codes[kTileBlocks][kGroups][2][32];
  alignas(32) float scales[kTileBlocks * kSubs][2][kHalfRows];
  alignas(32) float mins[kFormats[kFormat].has_min ? kTileBlocks * kSubs : 1][2][kHalfRows];
};

template <int kFormat>
void fill_tile(const uint8_t* panel, int64_t begin, int count, __m256i levels, Tile<kFormat>& tile) {
  constexpr Format kF = kFormats[kFormat];
  constexpr int kSubs = kBlock / kF.sub;
  const uint8_t* header = panel + begin / kSuperBlocks * kSuperBytes<kFormat>;
  for (int b = 0; b < count; ++b) {
    const int in_super = b % kSuperBlocks;
    if (in_super == 0 && b > 0) header += kSuperBytes<kFormat>;
#pragma GCC unroll 8
    for (int h = 0; h < 2; ++h) {
      __m256i w[kGroups];
      unpack<kFormat>(header + kF.header_bytes + in_super * kF.block_bytes + h * 32, levels, w);
      for (int g = 0; g < kGroups; ++g) _mm256_store_si256(reinterpret_cast<__m256i*>(tile.codes[b][g][h]), w[g]);
      for (int s = 0; s < kSubs; ++s) {
        __m256 scale;
        __m256 min = _mm256_setzero_ps();
        load_scale<kFormat>(header, h * kHalfRows, in_super * kSubs + s, scale, min);
        _mm256_store_ps(tile.scales[b * kSubs + s][h], scale);
        if constexpr (kF.has_min) _mm256_store_ps(tile.mins[b * kSubs + s][h], min);
      }
    }
  }
}

// One tile times kTokens tokens, added to their sums (or written there, at the first blocks of a row). `next`: where
// the next tile lies packed, to be fetched meanwhile, or null.
template <int kFormat, int kTokens>
void multiply(const Job& job, const Tile<kFormat>& tile, float (*sums)[2][kHalfRows], int64_t token, int64_t begin,
              int count, const uint8_t* next) {
  constexpr Format kF = kFormats[kFormat];
  constexpr int kSubs = kBlock / kF.sub;
  alignas(32) int32_t corrections[kTokens][kTileBlocks * kSubs];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) correct<kFormat>(job.activations, token + t, begin, count, corrections[t]);
  const int64_t stride = job.activations.stride;
  const int8_t* codes = codes_of(job.activations, token) + begin * kBlock;
  const auto* scales = reinterpret_cast<const int8_t*>(scales_of(job.activations, token) + begin);
  __m256 y[2][kTokens];
#pragma GCC unroll 8
  for (int h = 0; h < 2; ++h) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) y[h][t] = begin == 0 ? _mm256_setzero_ps() : _mm256_load_ps(sums[t][h]);
  }
  for (int sub = 0; sub < count * kSubs; ++sub) {
    if (next != nullptr) {
      constexpr int kSubBytes = kTileBytes<kFormat> / (kTileBlocks * kSubs);
      prefetch(next + sub * kSubBytes, kSubBytes);
    }
    __m256i sum[2][kTokens];
    dot_panel<kProducts<kFormat>, kTokens>(tile.codes[sub / kSubs] + sub % kSubs * (kF.sub / 4), codes + sub * kF.sub,
                                           stride, sum);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const __m256 a_scale = _mm256_broadcast_ss(reinterpret_cast<const float*>(scales + t * stride) + sub / kSubs);
      const __m256i start = _mm256_set1_epi32(corrections[t][sub]);
#pragma GCC unroll 8
      for (int h = 0; h < 2; ++h) {
        if constexpr (!kF.has_min && !kSignedLevels<kFormat>) sum[h][t] = _mm256_add_epi32(sum[h][t], start);
        const __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(sum[h][t]), a_scale);
        y[h][t] = _mm256_fmadd_ps(product, _mm256_load_ps(tile.scales[sub][h]), y[h][t]);
        if constexpr (kF.has_min) {
          y[h][t] = _mm256_fnmadd_ps(_mm256_load_ps(tile.mins[sub][h]), _mm256_castsi256_ps(start), y[h][t]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int h = 0; h < 2; ++h) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) _mm256_store_ps(sums[t][h], y[h][t]);
  }
}

// Tokens [first, end) times a panel.
template <int kFormat>
void multiply_panel(const Job& job, int64_t row, int64_t first, int64_t end, __m256i levels) {
  using Multiply =
      void (*)(const Job&, const Tile<kFormat>&, float(*)[2][kHalfRows], int64_t, int64_t, int, const uint8_t*);
  static constexpr Multiply kMultiply[kTileTokens] = {multiply<kFormat, 1>, multiply<kFormat, 2>, multiply<kFormat, 3>,
                                                      multiply<kFormat, 4>, multiply<kFormat, 5>, multiply<kFormat, 6>};
  Tile<kFormat> tile;
  alignas(32) PanelSums sums;
  const uint8_t* panel = job.packed + row / kPanelRows * job.panel_bytes;
  const int64_t n = end - first;
  for (int64_t begin = 0; begin < job.blocks; begin += kTileBlocks) {
    const int count = static_cast<int>(job.blocks - begin < kTileBlocks ? job.blocks - begin : kTileBlocks);
    fill_tile<kFormat>(panel, begin, count, levels, tile);
    const uint8_t* next = panel + (begin + kTileBlocks) / kSuperBlocks * kSuperBytes<kFormat>;
    for_token_shares<kTileTokens>(n, [&](int64_t token, int64_t tokens) {
      kMultiply[tokens - 1](job, tile, sums + token, first + token, begin, count, token == 0 ? next : nullptr);
    });
  }
  store_sums(sums, n, job.out + first * job.ldo + row, job.ldo, job.row_end - row);
}

// Streams a job of at most kTokens tokens.
template <int kFormat, int kTokens>
bool stream_some(const Job& job) {
  if (job.n == kTokens) {
    stream<kFormat, kTokens>(job);
    return true;
  }
  if constexpr (kTokens > 1) return stream_some<kFormat, kTokens - 1>(job);
  return false;
}

template <int kFormat>
void compute(const Job& job) noexcept {
  if (stream_some<kFormat, kStreamTokens<kFormat>>(job)) return;
  const __m256i levels = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(job.levels)));
  const int64_t chunk = chunk_tokens(job.activations.stride);
  for (int64_t first = 0; first < job.n; first += chunk) {
    const int64_t end = first + chunk < job.n ? first + chunk : job.n;
    for (int64_t row = job.row_begin; row < job.row_end; row += kPanelRows) {
      multiply_panel<kFormat>(job, row, first, end, levels);
    }
  }
}

}  // namespace

const Compute kComputeAvx2[kFormatCount] = {
    compute<0>, compute<1>, compute<2>, compute<3>,  compute<4>,  compute<5>,  compute<6>,
    compute<7>, compute<8>, compute<9>, compute<10>, compute<11>, compute<12>,
};

}  // namespace nibble::kernel::blocks
