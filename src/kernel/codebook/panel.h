// How weights of the codebook encodings lie in memory for the integer kernels, and the plain types those share.
//
// Sixteen rows form a panel: a header, then the codes. The header has for each group of columns that share a table or a
// scale: sixteen f32 scales; of kmeans also the centroids in f16, [table_rows][2^bits], one table for all rows of a
// panel or one for each. Codes are looked up by bytes, so the codes of a row stay side by side: a vector of 64 bytes
// holds sixteen bytes of each of the rows v, v + 4, v + 8 and v + 12, v = 0 .. 3. Strips of columns, zeros where a row
// ends before:
//   4 bits, 32 columns: columns 0-15 in the low halves of the bytes, 16-31 in the high halves
//   2 bits, 64 columns: sixteen columns in each two bits
//   3 bits, 128 columns: the low two bits of columns 0-63, those of 64-127, then the high bits of sixteen columns each
//
// A level is a whole number of 16 bits. nf4 and fp4: level * scale / unit, the scale that of the block; fp4's levels
// are whole numbers, nf4's rounded ones, at most 6.2e-6 off where the largest is 1. kmeans: centroid = level * scale,
// the scale a power of two such that the largest centroid takes 15 bits: of f16 centroids only those below a sixteenth
// of the largest are rounded. Lookups of rows give the exact values.
//
// Every path computes, for row r and token t, in this order and with these roundings, so that all give the same bits:
//   for each stretch of kStretchBlocks blocks, for each part of it that lies in one group:
//     s = 0; for each block: i = sum level * a (exact); s = fma(f32(i), a_scale, s);  then y = fma(s, scale, y)
#pragma once

#include <stdint.h>

#include "kernel/panel.h"
#include "kernel/tile.h"

namespace nibble::kernel::codebook {

constexpr int kStretchBlocks = 16;
constexpr int kMaxLevels = 16;
constexpr int kPairs = 8;         // of rows, in a panel: v and v + 4, v + 8 and v + 12
constexpr int kVectorBytes = 32;  // a pair's codes

enum class Levels { kNf4, kFp4, kCentroids };

// The fixed levels, and what 1 is.
constexpr int16_t kNf4Levels[kMaxLevels] = {-25545, -17784, -13413, -10088, -7266, -4720, -2326, 0,
                                            2033,   4111,   6287,   8632,   11258, 14372, 18468, 25545};
constexpr float kNf4Unit = 25544.875f;
constexpr int16_t kFp4Levels[kMaxLevels] = {0, 170,  21760,  32640,  10880,  16320,  5440,  8160,
                                            0, -170, -21760, -32640, -10880, -16320, -5440, -8160};
constexpr float kFp4Unit = 32640;

// Blocks of 32 columns in a strip, and the bytes of a strip, by bits.
constexpr int strip_blocks(int bits) { return bits == 4 ? 1 : bits == 2 ? 2 : 4; }
constexpr int strip_bytes(int bits) { return kPairs * kVectorBytes * (bits == 3 ? 3 : 1); }

// A panel, in bytes.
struct Geometry {
  Levels levels;
  int bits;
  int table_rows;        // 0, 1 or 16
  int64_t blocks;        // of 32 columns in a row
  int64_t group_blocks;  // of a full group
  int64_t group_bytes;   // of the header
  int64_t codes_at;
  int64_t bytes;
};

// Where the part that begins at block `begin` ends.
constexpr int64_t part_end(const Geometry& geometry, int64_t begin) {
  return kernel::part_end(begin, geometry.group_blocks, kStretchBlocks, geometry.blocks);
}

// One call of a kernel: rows [row_begin, row_end) of the matrix, row_begin a multiple of kPanelRows.
struct Job {
  Geometry geometry;
  const uint8_t* packed;
  Activations activations;
  int64_t n;
  int64_t row_begin;
  int64_t row_end;
  float* out;
  int64_t ldo;
};

void compute_scalar(const Job& job) noexcept;
void compute_avx2(const Job& job) noexcept;
void compute_avx512(const Job& job) noexcept;

// The weights of a call of the tile kernel.
struct TileWeights {
  Geometry geometry;
  const uint8_t* packed;
  const float* levels;  // of nf4 and fp4, exact
};
void compute_amx(const TileWeights& weights, const TileJob& job) noexcept;

}  // namespace nibble::kernel::codebook
