// How weights of the block encodings lie in memory for the integer kernels, and the plain types those share.
//
// A panel (kernel/panel.h) is a run of super-blocks of 256 columns (the last may have fewer blocks of 32), each a
// header of scales followed by its blocks:
//   f16 scales:   u16 d[8][16], with mins u16 m[8][16]
//   e8m0 scales:  u8 e[8][16], half of 2^(e - 127)
//   super scales: u16 d[16], with mins u16 dmin[16]; u8 scale[subs][16]; with mins u8 min[subs][16], or in the high
//                 nibbles of the scales when those have 4 bits; padded to 64
// A value is d * scale * level - dmin * min with level = code - offset, or the entry of a table of sixteen.
//
// Every path computes, for row r and token t, in this order and with these roundings, so that all give the same bits:
//   for each sub-block: i = sum level * a (exact); y = fma(f32(i) * a_scale, d * scale, y);
//                       with mins: y = fma(-(dmin * min), a_scale * f32(sum a), y)
#pragma once

#include <stdint.h>

#include "kernel/panel.h"
#include "kernel/tile.h"

namespace nibble::kernel::blocks {

constexpr int kSuperBlocks = 8;  // blocks of a super-block

struct Format {
  int low_bits;
  int high_bits;
  bool table;         // codes select from a table of sixteen levels
  bool super_scales;  // integer scales under f16 ones of 256 columns; else a scale per 32
  int sub;            // columns per scale: 32 or 16
  bool has_min;
  bool e2m1;  // the table is that of E2M1 doubled, the scales powers of two in a byte, which f16 does not reach
  bool nibble_scales;  // scale and min share a byte
  // Derived.
  int offset;      // level = unsigned code or entry of the table - offset
  int level_bits;  // of level + offset
  int header_bytes;
  int low_bytes;    // of a block
  int block_bytes;  // low and high
  int scales_at;    // super scales: offsets in the header
  int mins_at;

  constexpr CodePlanes planes() const { return {low_bits, high_bits}; }
};

consteval Format make_format(int low_bits, int high_bits, bool table, bool super_scales, int sub, bool has_min,
                             bool e2m1 = false) {
  Format f{low_bits, high_bits, table, super_scales, sub, has_min, e2m1, false, 0, 0, 0, 0, 0, 0, 0};
  f.nibble_scales = super_scales && sub == 16 && has_min;
  f.offset = e2m1 ? 12 : table ? 128 : has_min ? 0 : 1 << (low_bits + high_bits - 1);
  f.level_bits = e2m1 ? 5 : table ? 8 : low_bits + high_bits;
  const int subs = 256 / sub;
  if (super_scales) {
    f.scales_at = has_min ? 64 : 32;
    f.mins_at = f.nibble_scales ? f.scales_at : f.scales_at + subs * kPanelRows;
    f.header_bytes = (f.scales_at + subs * kPanelRows * (has_min && !f.nibble_scales ? 2 : 1) + 63) / 64 * 64;
  } else {
    f.mins_at = kSuperBlocks * kPanelRows * (e2m1 ? 1 : 2);
    f.header_bytes = f.mins_at * (has_min ? 2 : 1);
  }
  f.low_bytes = kPanelRows * kBlock * low_bits / 8;
  f.block_bytes = kPanelRows * kBlock * (low_bits + high_bits) / 8;
  return f;
}

// In no particular order; each path has one instance of its kernels per entry.
constexpr Format kFormats[] = {
    make_format(4, 0, false, false, 32, false),       // q4_0
    make_format(4, 0, false, false, 32, true),        // q4_1
    make_format(4, 1, false, false, 32, false),       // q5_0
    make_format(4, 1, false, false, 32, true),        // q5_1
    make_format(8, 0, false, false, 32, false),       // q8_0
    make_format(4, 0, true, false, 32, false),        // iq4_nl
    make_format(4, 0, false, true, 32, true),         // q4_k
    make_format(4, 1, false, true, 32, true),         // q5_k
    make_format(4, 0, true, true, 32, false),         // iq4_xs
    make_format(2, 0, false, true, 16, true),         // q2_k
    make_format(2, 1, false, true, 16, false),        // q3_k
    make_format(4, 2, false, true, 16, false),        // q6_k
    make_format(4, 0, true, false, 32, false, true),  // mxfp4, mxfp4-hf
};
constexpr int kFormatCount = static_cast<int>(sizeof(kFormats) / sizeof(kFormats[0]));

// One call of a kernel: rows [row_begin, row_end) of the matrix, row_begin a multiple of kPanelRows.
struct Job {
  const uint8_t* packed;
  int64_t panel_bytes;
  int64_t blocks;         // of 32 columns in a row
  const uint8_t* levels;  // 16 levels + offset, of table types
  Activations activations;
  int64_t n;
  int64_t row_begin;
  int64_t row_end;
  float* out;
  int64_t ldo;
};

using Compute = void (*)(const Job& job) noexcept;
extern const Compute kComputeScalar[kFormatCount];
extern const Compute kComputeAvx2[kFormatCount];
extern const Compute kComputeAvx512[kFormatCount];

// The weights of a call of the tile kernel.
struct TileWeights {
  const uint8_t* packed;
  int64_t panel_bytes;
  const uint8_t* levels;  // as Job
};
using ComputeTiles = void (*)(const TileWeights& weights, const TileJob& job) noexcept;
extern const ComputeTiles kComputeAmx[kFormatCount];

}  // namespace nibble::kernel::blocks
