// The path of AVX-512 with VNNI. One token (or a few) streams the packed weights through registers; more tokens unpack
// a tile of 32 rows once and run a register-blocked product over all of them.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/blocks/panel.h"
#include "kernel/blocks/unpack_avx512.h"
#include "kernel/panel_avx512.h"

namespace nibble::kernel::blocks {

namespace {

constexpr int kStreamTokens = 8;    // that meet a block in registers
constexpr int kStreamGroups = 3;    // of so many tokens, before tiles are better
constexpr int kStreamBlocks = 256;  // blocks of 32 columns it works through before the next panel
constexpr int kTileBlocks = 16;     // blocks of an unpacked tile: 16 KiB of codes
constexpr int kTileTokens = 6;      // 2 panels x 6 tokens: 12 integer and 12 float sums in registers
constexpr int kPrefetchBytes = 2048;

inline const float* scales_of(const Activations& a, int64_t token) {
  return reinterpret_cast<const float*>(a.rows + token * a.stride + a.scales_at);
}
inline const int8_t* codes_of(const Activations& a, int64_t token) {
  return reinterpret_cast<const int8_t*>(a.rows + token * a.stride);
}

// What the activations alone contribute to each sub-block of blocks [begin, begin + count), begin a multiple of 16:
// a_scale * sum a as f32 for types with mins, else -offset * sum a, where the integer sums start. May write up to 16
// blocks more than asked.
template <int kFormat>
inline void correct(const Activations& a, int64_t token, int64_t begin, int count, void* out) {
  constexpr Format kF = kFormats[kFormat];
  const uint8_t* sums = a.rows + token * a.stride + a.sums_at + begin * 4;
  const float* scales = scales_of(a, token) + begin;
  auto* dst = static_cast<uint8_t*>(out);
  for (int b = 0; b < count; b += 16, sums += 64, scales += 16) {
    if constexpr (kF.sub == 32) {
      const __m512i sum = _mm512_madd_epi16(_mm512_loadu_si512(sums), _mm512_set1_epi16(kF.has_min ? 1 : -kF.offset));
      if constexpr (kF.has_min) {
        _mm512_storeu_ps(dst, _mm512_mul_ps(_mm512_loadu_ps(scales), _mm512_cvtepi32_ps(sum)));
      } else {
        _mm512_storeu_si512(dst, sum);
      }
      dst += 64;
    } else {
      const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
      for (int half = 0; half < 2; ++half, dst += 64) {
        const __m512i sum =
            _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + half * 32)));
        if constexpr (kF.has_min) {
          const __m512 scale = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(scales + half * 8)));
          _mm512_storeu_ps(dst, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum)));
        } else {
          _mm512_storeu_si512(dst, _mm512_mullo_epi32(sum, _mm512_set1_epi32(-kF.offset)));
        }
      }
    }
  }
}

// Adds one sub-block's product to y, as panel.h orders it.
template <bool kHasMin>
inline __m512 add_block(__m512 y, __m512i dot, float a_scale, __m512 scale, __m512 min, float a_sum) {
  y = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot), _mm512_set1_ps(a_scale)), scale, y);
  if constexpr (kHasMin) y = _mm512_fnmadd_ps(min, _mm512_set1_ps(a_sum), y);
  return y;
}

// What up to kStreamTokens tokens bring to a stretch of blocks.
template <int kFormat>
struct Inputs {
  static constexpr int kSubs = kBlock / kFormats[kFormat].sub;
  alignas(64) int32_t corrections[kStreamTokens][kStreamBlocks * kSubs];
  const int8_t* codes[kStreamTokens];
  const float* scales[kStreamTokens];
  int64_t first_token;
  int64_t tokens;

  void prepare(const Activations& a, int64_t first, int64_t n, int64_t begin, int count) {
    first_token = first;
    tokens = n;
    for (int64_t t = 0; t < n; ++t) {
      correct<kFormat>(a, first + t, begin, count, corrections[t]);
      codes[t] = codes_of(a, first + t) + begin * kBlock;
      scales[t] = scales_of(a, first + t) + begin;
    }
  }
};

// Adds blocks [b, end) of the stretch, which lie in the super-block at `header`, to y.
template <int kFormat, int kTokens>
inline void stream_super(const Inputs<kFormat>& inputs, const uint8_t* header, __m512i levels, int b, int end,
                         __m512 (&y)[kTokens]) {
  constexpr Format kF = kFormats[kFormat];
  constexpr int kSubs = kBlock / kF.sub;
  const Super super = load_super<kFormat>(header);
  const uint8_t* block = header + kF.header_bytes;
  for (int line = 0; line < kF.header_bytes; line += 64) _mm_prefetch(header + kPrefetchBytes + line, _MM_HINT_T0);
  for (int in_super = 0; b < end; ++b, ++in_super, block += kF.block_bytes) {
    for (int line = 0; line < kF.block_bytes; line += 64) _mm_prefetch(block + kPrefetchBytes + line, _MM_HINT_T0);
    __m512i w[kGroups];
    unpack<kFormat>(block, levels, w);
    for (int s = 0; s < kSubs; ++s) {
      __m512 scale;
      __m512 min = _mm512_setzero_ps();
      load_scale<kFormat>(header, super, in_super * kSubs + s, scale, min);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const int at = b * kSubs + s;
        const int8_t* a = inputs.codes[t] + b * kBlock + s * kF.sub;
        __m512i dot = kF.has_min ? _mm512_setzero_si512() : _mm512_set1_epi32(inputs.corrections[t][at]);
        for (int g = 0; g < kGroups / kSubs; ++g) {
          dot = _mm512_dpbusd_epi32(dot, w[s * (kGroups / kSubs) + g], broadcast(a + g * 4));
        }
        float a_sum;
        __builtin_memcpy(&a_sum, &inputs.corrections[t][at], 4);
        y[t] = add_block<kF.has_min>(y[t], dot, inputs.scales[t][b], scale, min, a_sum);
      }
    }
  }
}

// A stretch of kPanels panels, a super-block of each in turn: memory gives more to several streams than to one.
template <int kFormat, int kTokens, int kPanels>
void stream_panels(const Job& job, const Inputs<kFormat>& inputs, int64_t row, int64_t begin, int count) {
  constexpr Format kF = kFormats[kFormat];
  constexpr int kSuperBytes = kF.header_bytes + kSuperBlocks * kF.block_bytes;
  const __m512i levels = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(job.levels)));
  const uint8_t* header = job.packed + row / kPanelRows * job.panel_bytes + begin / kSuperBlocks * kSuperBytes;
  float* out = job.out + inputs.first_token * job.ldo + row;
  __m512 y[kPanels][kTokens];
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    const __mmask16 mask = row_mask(job.row_end - row - p * kPanelRows);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      y[p][t] = begin == 0 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask, out + t * job.ldo + p * kPanelRows);
    }
  }
  for (int b = 0; b < count; b += kSuperBlocks, header += kSuperBytes) {
    const int end = count - b < kSuperBlocks ? count : b + kSuperBlocks;
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p)
      stream_super<kFormat, kTokens>(inputs, header + p * job.panel_bytes, levels, b, end, y[p]);
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    const __mmask16 mask = row_mask(job.row_end - row - p * kPanelRows);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) _mm512_mask_storeu_ps(out + t * job.ldo + p * kPanelRows, mask, y[p][t]);
  }
}

template <int kFormat>
using Stream = void (*)(const Job&, const Inputs<kFormat>&, int64_t, int64_t, int);

// Few tokens: every panel once, through registers; its second group of tokens finds it in the cache.
template <int kFormat>
void stream(const Job& job) {
  static constexpr Stream<kFormat> kOnePanel[kStreamTokens] = {
      stream_panels<kFormat, 1, 1>, stream_panels<kFormat, 2, 1>, stream_panels<kFormat, 3, 1>,
      stream_panels<kFormat, 4, 1>, stream_panels<kFormat, 5, 1>, stream_panels<kFormat, 6, 1>,
      stream_panels<kFormat, 7, 1>, stream_panels<kFormat, 8, 1>};
  static constexpr Stream<kFormat> kManyPanels[] = {stream_panels<kFormat, 1, 4>, stream_panels<kFormat, 2, 2>,
                                                    stream_panels<kFormat, 3, 2>, stream_panels<kFormat, 4, 2>};
  static constexpr int kPanels[] = {4, 2, 2, 2};
  const int64_t groups = (job.n + kStreamTokens - 1) / kStreamTokens;
  Inputs<kFormat> inputs[kStreamGroups];
  for (int64_t begin = 0; begin < job.blocks; begin += kStreamBlocks) {
    const int count = static_cast<int>(job.blocks - begin < kStreamBlocks ? job.blocks - begin : kStreamBlocks);
    for (int64_t i = 0; i < groups; ++i) {
      const int64_t first = job.n * i / groups;
      inputs[i].prepare(job.activations, first, job.n * (i + 1) / groups - first, begin, count);
    }
    int64_t row = job.row_begin;
    if (job.n <= 4) {
      const int panels = kPanels[job.n - 1];
      for (; row + (panels - 1) * kPanelRows < job.row_end; row += panels * kPanelRows)
        kManyPanels[job.n - 1](job, inputs[0], row, begin, count);
    }
    for (; row < job.row_end; row += kPanelRows) {
      for (int64_t i = 0; i < groups; ++i) kOnePanel[inputs[i].tokens - 1](job, inputs[i], row, begin, count);
    }
  }
}

// Unpacked weights of one or two panels, blocks of 32 columns one after another; within a block and group the vectors
// of the panels lie side by side.
template <int kFormat, int kPanels>
struct Tile {
  static constexpr int kSubs = kBlock / kFormats[kFormat].sub;
  alignas(64) uint8_t codes[kTileBlocks][kGroups][kPanels][64];
  alignas(64) float scales[kTileBlocks * kSubs][kPanels][kPanelRows];
  alignas(64) float mins[kFormats[kFormat].has_min ? kTileBlocks * kSubs : 1][kPanels][kPanelRows];
};

template <int kFormat, int kPanels>
void fill_tile(const uint8_t* const (&panels)[kPanels], int64_t begin, int count, __m512i levels,
               Tile<kFormat, kPanels>& tile) {
  constexpr Format kF = kFormats[kFormat];
  constexpr int kSubs = kBlock / kF.sub;
  constexpr int kSuperBytes = kF.header_bytes + kSuperBlocks * kF.block_bytes;
  for (int p = 0; p < kPanels; ++p) {
    const uint8_t* header = panels[p] + begin / kSuperBlocks * kSuperBytes;
    for (int b = 0; b < count; header += kSuperBytes) {
      const Super super = load_super<kFormat>(header);
      for (int in_super = 0; in_super < kSuperBlocks && b < count; ++in_super, ++b) {
        __m512i w[kGroups];
        unpack<kFormat>(header + kF.header_bytes + in_super * kF.block_bytes, levels, w);
        for (int g = 0; g < kGroups; ++g) _mm512_store_si512(tile.codes[b][g][p], w[g]);
        for (int s = 0; s < kSubs; ++s) {
          __m512 scale;
          __m512 min = _mm512_setzero_ps();
          load_scale<kFormat>(header, super, in_super * kSubs + s, scale, min);
          _mm512_store_ps(tile.scales[b * kSubs + s][p], scale);
          if constexpr (kF.has_min) _mm512_store_ps(tile.mins[b * kSubs + s][p], min);
        }
      }
    }
  }
}

// One tile times kTokens tokens, added to `out` (or written to it, at the first blocks of a row).
template <int kFormat, int kPanels, int kTokens>
void multiply(const Job& job, const Tile<kFormat, kPanels>& tile, int64_t token, int64_t begin, int count,
              const __mmask16 (&masks)[kPanels], float* out) {
  constexpr Format kF = kFormats[kFormat];
  constexpr int kSubs = kBlock / kF.sub;
  alignas(64) int32_t corrections[kTokens][kTileBlocks * kSubs];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) correct<kFormat>(job.activations, token + t, begin, count, corrections[t]);
  const int8_t* codes = codes_of(job.activations, token) + begin * kBlock;
  const float* scales = scales_of(job.activations, token) + begin;
  const int64_t stride = job.activations.stride;
  __m512 y[kPanels][kTokens];
#pragma GCC unroll 8
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      y[p][t] = begin == 0 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(masks[p], out + t * job.ldo + p * kPanelRows);
    }
  }
  for (int b = 0; b < count; ++b) {
    for (int s = 0; s < kSubs; ++s) {
      __m512i dot[kPanels][kTokens];
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
        for (int p = 0; p < kPanels; ++p) {
          dot[p][t] = kF.has_min ? _mm512_setzero_si512() : _mm512_set1_epi32(corrections[t][b * kSubs + s]);
        }
      }
#pragma GCC unroll 8
      for (int g = 0; g < kGroups / kSubs; ++g) {
        const int group_in_block = s * (kGroups / kSubs) + g;
        __m512i w[kPanels];
#pragma GCC unroll 8
        for (int p = 0; p < kPanels; ++p) w[p] = _mm512_load_si512(tile.codes[b][group_in_block][p]);
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
          const __m512i a = broadcast(codes + t * stride + b * kBlock + group_in_block * 4);
#pragma GCC unroll 8
          for (int p = 0; p < kPanels; ++p) dot[p][t] = _mm512_dpbusd_epi32(dot[p][t], w[p], a);
        }
      }
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) {
        const __m512 scale = _mm512_load_ps(tile.scales[b * kSubs + s][p]);
        const __m512 min = kF.has_min ? _mm512_load_ps(tile.mins[b * kSubs + s][p]) : _mm512_setzero_ps();
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
          float a_sum;
          __builtin_memcpy(&a_sum, &corrections[t][b * kSubs + s], 4);
          const float a_scale =
              *reinterpret_cast<const float*>(reinterpret_cast<const int8_t*>(scales + b) + t * stride);
          y[p][t] = add_block<kF.has_min>(y[p][t], dot[p][t], a_scale, scale, min, a_sum);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) _mm512_mask_storeu_ps(out + t * job.ldo + p * kPanelRows, masks[p], y[p][t]);
  }
}

// All tokens times one or two panels.
template <int kFormat, int kPanels>
void multiply_panels(const Job& job, int64_t row, __m512i levels) {
  using Multiply =
      void (*)(const Job&, const Tile<kFormat, kPanels>&, int64_t, int64_t, int, const __mmask16(&)[kPanels], float*);
  static constexpr Multiply kMultiply[kTileTokens] = {
      multiply<kFormat, kPanels, 1>, multiply<kFormat, kPanels, 2>, multiply<kFormat, kPanels, 3>,
      multiply<kFormat, kPanels, 4>, multiply<kFormat, kPanels, 5>, multiply<kFormat, kPanels, 6>,
  };
  Tile<kFormat, kPanels> tile;
  const uint8_t* panels[kPanels];
  __mmask16 masks[kPanels];
  for (int p = 0; p < kPanels; ++p) {
    panels[p] = job.packed + (row / kPanelRows + p) * job.panel_bytes;
    masks[p] = row_mask(job.row_end - row - p * kPanelRows);
  }
  const int64_t shares = (job.n + kTileTokens - 1) / kTileTokens;  // tokens are shared out evenly
  for (int64_t begin = 0; begin < job.blocks; begin += kTileBlocks) {
    const int count = static_cast<int>(job.blocks - begin < kTileBlocks ? job.blocks - begin : kTileBlocks);
    fill_tile<kFormat, kPanels>(panels, begin, count, levels, tile);
    for (int64_t i = 0; i < shares; ++i) {
      const int64_t token = job.n * i / shares;
      const int64_t tokens = job.n * (i + 1) / shares - token;
      kMultiply[tokens - 1](job, tile, token, begin, count, masks, job.out + token * job.ldo + row);
    }
  }
}

template <int kFormat>
void compute(const Job& job) noexcept {
  if (job.n <= kStreamTokens * kStreamGroups) return stream<kFormat>(job);
  const __m512i levels = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(job.levels)));
  int64_t row = job.row_begin;
  for (; row + kPanelRows < job.row_end; row += 2 * kPanelRows) multiply_panels<kFormat, 2>(job, row, levels);
  if (row < job.row_end) multiply_panels<kFormat, 1>(job, row, levels);
}

}  // namespace

const Compute kComputeAvx512[kFormatCount] = {
    compute<0>, compute<1>, compute<2>, compute<3>,  compute<4>,  compute<5>,  compute<6>,
    compute<7>, compute<8>, compute<9>, compute<10>, compute<11>, compute<12>,
};

}  // namespace nibble::kernel::blocks
