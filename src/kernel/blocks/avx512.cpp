// The path of AVX-512 with VNNI. One token (or a few) streams the packed weights through registers; more tokens unpack
// a tile of 32 rows once and run a register-blocked product over all of them.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/blocks/panel.h"

namespace nibble::kernel::blocks {

namespace {

constexpr int kStreamTokens = 4;    // most tokens of the streaming kernel
constexpr int kStreamBlocks = 256;  // blocks of 32 columns it works through before the next panel
constexpr int kTileBlocks = 16;     // blocks of an unpacked tile: 16 KiB of codes
constexpr int kTileTokens = 6;      // 2 panels x 6 tokens: 12 integer and 12 float sums in registers
constexpr int kPrefetchBytes = 4096;

inline __m512i load(const void* p) { return _mm512_loadu_si512(p); }

template <int kBits>
inline __m512i shift_right(__m512i x) {
  if constexpr (kBits > 0) return _mm512_srli_epi16(x, kBits);
  if constexpr (kBits < 0) return _mm512_slli_epi16(x, -kBits);
  return x;
}

// Columns 4G..4G+3 of a block: levels + offset.
template <int kFormat, int kG>
inline __m512i group(const uint8_t* block, __m512i levels) {
  constexpr Format kF = kFormats[kFormat];
  if constexpr (kF.low_bits == 8) return load(block + kG * 64);
  constexpr int kVector = kF.low_bits == 4 ? kG % 4 : kG / 4;
  constexpr int kBit = kF.low_bits == 4 ? kG / 4 * 4 : kG % 4 * 2;
  __m512i code =
      _mm512_and_si512(shift_right<kBit>(load(block + kVector * 64)), _mm512_set1_epi8(kF.low_bits == 4 ? 15 : 3));
  if constexpr (kF.high_bits > 0) {
    constexpr int kHighVector = kF.high_bits == 1 ? 0 : kG / 4;
    constexpr int kHighBit = kF.high_bits == 1 ? kG : kG % 4 * 2;
    const __m512i high = shift_right<kHighBit - kF.low_bits>(load(block + kF.low_bytes + kHighVector * 64));
    const __m512i mask = _mm512_set1_epi8(static_cast<char>(((1 << kF.high_bits) - 1) << kF.low_bits));
    code = _mm512_ternarylogic_epi32(code, high, mask, 0xF8);  // code | (high & mask)
  }
  if constexpr (kF.table) code = _mm512_shuffle_epi8(levels, code);
  return code;
}

template <int kFormat>
inline void unpack(const uint8_t* block, __m512i levels, __m512i (&w)[kGroups]) {
  w[0] = group<kFormat, 0>(block, levels);
  w[1] = group<kFormat, 1>(block, levels);
  w[2] = group<kFormat, 2>(block, levels);
  w[3] = group<kFormat, 3>(block, levels);
  w[4] = group<kFormat, 4>(block, levels);
  w[5] = group<kFormat, 5>(block, levels);
  w[6] = group<kFormat, 6>(block, levels);
  w[7] = group<kFormat, 7>(block, levels);
}

inline __m512 load_f16(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline __m512 unsigned_to_f32(__m128i x) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(x)); }
inline __m512 signed_to_f32(__m128i x) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x)); }
// Half of 2^(code - 127), as encoding/e2m1.h has it; below 255.
inline __m512 half_e8m0(__m128i codes) {
  const __m512i power = _mm512_slli_epi32(_mm512_cvtepu8_epi32(codes), 23);
  return _mm512_mul_ps(_mm512_castsi512_ps(_mm512_max_epi32(power, _mm512_set1_epi32(0x00400000))),
                       _mm512_set1_ps(0.5f));
}

// The scales of a super-block that all its blocks share.
struct Super {
  __m512 d;
  __m512 dmin;
};
template <int kFormat>
inline Super load_super(const uint8_t* header) {
  constexpr Format kF = kFormats[kFormat];
  Super super{};
  if constexpr (kF.super_scales) {
    super.d = load_f16(header);
    if constexpr (kF.has_min) super.dmin = load_f16(header + 32);
  }
  return super;
}

// Scale and min of sub-block `sub` of a super-block.
template <int kFormat>
inline void load_scale(const uint8_t* header, const Super& super, int sub, __m512& scale, __m512& min) {
  constexpr Format kF = kFormats[kFormat];
  if constexpr (kF.e2m1) {
    scale = half_e8m0(_mm_loadu_si128(reinterpret_cast<const __m128i*>(header + sub * kPanelRows)));
  } else if constexpr (!kF.super_scales) {
    scale = load_f16(header + sub * 32);
    if constexpr (kF.has_min) min = load_f16(header + kF.mins_at + sub * 32);
  } else {
    const __m128i scales = _mm_loadu_si128(reinterpret_cast<const __m128i*>(header + kF.scales_at + sub * kPanelRows));
    if constexpr (kF.nibble_scales) {
      const __m128i low = _mm_set1_epi8(15);
      scale = _mm512_mul_ps(super.d, unsigned_to_f32(_mm_and_si128(scales, low)));
      min = _mm512_mul_ps(super.dmin, unsigned_to_f32(_mm_and_si128(_mm_srli_epi16(scales, 4), low)));
    } else {
      scale = _mm512_mul_ps(super.d, signed_to_f32(scales));
      if constexpr (kF.has_min) {
        const uint8_t* mins = header + kF.mins_at + sub * kPanelRows;
        min = _mm512_mul_ps(super.dmin, unsigned_to_f32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(mins))));
      }
    }
  }
}

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
      const __m512i sum = _mm512_madd_epi16(load(sums), _mm512_set1_epi16(kF.has_min ? 1 : -kF.offset));
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

inline __m512i broadcast(const int8_t* four) {
  int bits;
  __builtin_memcpy(&bits, four, 4);
  return _mm512_set1_epi32(bits);
}

inline __mmask16 row_mask(int64_t rows) {
  return rows >= kPanelRows ? 0xFFFF : static_cast<__mmask16>((1 << rows) - 1);
}

// Adds one sub-block's product to y, as panel.h orders it.
template <bool kHasMin>
inline __m512 add_block(__m512 y, __m512i dot, float a_scale, __m512 scale, __m512 min, float a_sum) {
  y = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot), _mm512_set1_ps(a_scale)), scale, y);
  if constexpr (kHasMin) y = _mm512_fnmadd_ps(min, _mm512_set1_ps(a_sum), y);
  return y;
}

// Few tokens: every panel once, through registers.
template <int kFormat, int kTokens>
void stream(const Job& job, int64_t first_token) {
  constexpr Format kF = kFormats[kFormat];
  constexpr int kSubs = kBlock / kF.sub;
  constexpr int kSuperBytes = kF.header_bytes + kSuperBlocks * kF.block_bytes;
  alignas(64) int32_t corrections[kTokens][kStreamBlocks * kSubs];
  const __m512i levels = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(job.levels)));
  for (int64_t begin = 0; begin < job.blocks; begin += kStreamBlocks) {
    const int count = static_cast<int>(job.blocks - begin < kStreamBlocks ? job.blocks - begin : kStreamBlocks);
    const int8_t* codes[kTokens];
    const float* scales[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      correct<kFormat>(job.activations, first_token + t, begin, count, corrections[t]);
      codes[t] = codes_of(job.activations, first_token + t) + begin * kBlock;
      scales[t] = scales_of(job.activations, first_token + t) + begin;
    }
    for (int64_t row = job.row_begin; row < job.row_end; row += kPanelRows) {
      const __mmask16 mask = row_mask(job.row_end - row);
      const uint8_t* header = job.packed + row / kPanelRows * job.panel_bytes + begin / kSuperBlocks * kSuperBytes;
      float* out = job.out + first_token * job.ldo + row;
      __m512 y[kTokens];
      for (int t = 0; t < kTokens; ++t) {
        y[t] = begin == 0 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask, out + t * job.ldo);
      }
      for (int b = 0; b < count; header += kSuperBytes) {
        const Super super = load_super<kFormat>(header);
        const uint8_t* block = header + kF.header_bytes;
        const int end = count - b < kSuperBlocks ? count : b + kSuperBlocks;
        for (int line = 0; line < kF.header_bytes; line += 64)
          _mm_prefetch(header + kPrefetchBytes + line, _MM_HINT_T0);
        for (int in_super = 0; b < end; ++b, ++in_super, block += kF.block_bytes) {
          for (int line = 0; line < kF.block_bytes; line += 64)
            _mm_prefetch(block + kPrefetchBytes + line, _MM_HINT_T0);
          __m512i w[kGroups];
          unpack<kFormat>(block, levels, w);
          for (int s = 0; s < kSubs; ++s) {
            __m512 scale;
            __m512 min = _mm512_setzero_ps();
            load_scale<kFormat>(header, super, in_super * kSubs + s, scale, min);
            for (int t = 0; t < kTokens; ++t) {
              const int at = b * kSubs + s;
              const int8_t* a = codes[t] + b * kBlock + s * kF.sub;
              __m512i dot = kF.has_min ? _mm512_setzero_si512() : _mm512_set1_epi32(corrections[t][at]);
              for (int g = 0; g < kGroups / kSubs; ++g) {
                dot = _mm512_dpbusd_epi32(dot, w[s * (kGroups / kSubs) + g], broadcast(a + g * 4));
              }
              float a_sum;
              __builtin_memcpy(&a_sum, &corrections[t][at], 4);
              y[t] = add_block<kF.has_min>(y[t], dot, scales[t][b], scale, min, a_sum);
            }
          }
        }
      }
      for (int t = 0; t < kTokens; ++t) _mm512_mask_storeu_ps(out + t * job.ldo, mask, y[t]);
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
  for (int t = 0; t < kTokens; ++t) correct<kFormat>(job.activations, token + t, begin, count, corrections[t]);
  const int8_t* codes = codes_of(job.activations, token) + begin * kBlock;
  const float* scales = scales_of(job.activations, token) + begin;
  const int64_t stride = job.activations.stride;
  __m512 y[kPanels][kTokens];
  for (int p = 0; p < kPanels; ++p) {
    for (int t = 0; t < kTokens; ++t) {
      y[p][t] = begin == 0 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(masks[p], out + t * job.ldo + p * kPanelRows);
    }
  }
  for (int b = 0; b < count; ++b) {
    for (int s = 0; s < kSubs; ++s) {
      __m512i dot[kPanels][kTokens];
      for (int t = 0; t < kTokens; ++t) {
        for (int p = 0; p < kPanels; ++p) {
          dot[p][t] = kF.has_min ? _mm512_setzero_si512() : _mm512_set1_epi32(corrections[t][b * kSubs + s]);
        }
      }
#pragma GCC unroll 8
      for (int g = 0; g < kGroups / kSubs; ++g) {
        const int group_in_block = s * (kGroups / kSubs) + g;
        __m512i w[kPanels];
        for (int p = 0; p < kPanels; ++p) w[p] = _mm512_load_si512(tile.codes[b][group_in_block][p]);
        for (int t = 0; t < kTokens; ++t) {
          const __m512i a = broadcast(codes + t * stride + b * kBlock + group_in_block * 4);
          for (int p = 0; p < kPanels; ++p) dot[p][t] = _mm512_dpbusd_epi32(dot[p][t], w[p], a);
        }
      }
      for (int p = 0; p < kPanels; ++p) {
        const __m512 scale = _mm512_load_ps(tile.scales[b * kSubs + s][p]);
        const __m512 min = kF.has_min ? _mm512_load_ps(tile.mins[b * kSubs + s][p]) : _mm512_setzero_ps();
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
  for (int p = 0; p < kPanels; ++p) {
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
  switch (job.n) {
    case 1:
      return stream<kFormat, 1>(job, 0);
    case 2:
      return stream<kFormat, 2>(job, 0);
    case 3:
      return stream<kFormat, 3>(job, 0);
    case kStreamTokens:
      return stream<kFormat, 4>(job, 0);
    default:
      break;
  }
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
