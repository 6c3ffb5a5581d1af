// How weights of the affine encodings lie in memory for the integer kernels, and the plain types those share.
//
// Where the groups of columns are listed (act-order), columns are sorted by group, which then needs no list; their
// order, i32 (cols) padded to 64 bytes, lies before the first panel, and activations come in it. So lie the columns
// that are kept in f16, i32, if there are any.
//
// A panel (kernel/panel.h) is a header and its blocks of 32 columns one after another. The header: the scales of the
// groups [groups][16] in the dtype of the encoding, padded to 64 bytes; asymmetric: their zeros u8 [groups][16], padded
// to 64. A value is scale * level with level = code - zero, where codes are as stored and the zero of a symmetric
// encoding is its offset. Then the f32 sums of the values of each row [16], and
// the kept weights f16 [columns][16], padded to 64, whose codes are zeros.
//
// Every path computes, for row r and token t, in this order and with these roundings, so that all give the same bits:
//   for each stretch of kStretchBlocks blocks, for each part of it that lies in one group:
//     s = 0; for each block: i = sum level * a (exact); s = fma(f32(i), a_scale, s);  then y = fma(s, scale, y)
// and with activations of one scale and zero point for a row (kernel/i8_rows.h):
//     i = sum level * a (exact); y = fma(f32(i), scale, y)
//   for each input that is kept: k = fma(input, value, k);  then y = fma(fma(-a_zero, sum of the values, y), a_scale,
//   k)
#pragma once

#include <stdint.h>

#include "kernel/i8_rows.h"
#include "kernel/panel.h"
#include "kernel/tile.h"

namespace nibble::kernel::affine {

constexpr int kStretchBlocks = 32;

// Codes of 7 bits are held in 8.
constexpr CodePlanes kPlanes[] = {{8, 0}, {4, 2}, {4, 1}, {4, 0}, {2, 1}, {2, 0}};
constexpr int kPlanesCount = static_cast<int>(sizeof(kPlanes) / sizeof(kPlanes[0]));
constexpr int bits_of(CodePlanes planes) { return planes.low_bits + planes.high_bits; }
constexpr int block_bytes(CodePlanes planes) { return kPanelRows * kBlock * bits_of(planes) / 8; }

enum class ScaleType { kF32, kF16, kBf16 };

// A panel, in bytes.
struct Geometry {
  int planes;            // index into kPlanes
  int64_t blocks;        // of 32 columns in a row
  int64_t group_blocks;  // of a full group
  int64_t zeros_at;      // from the start of the panel
  int64_t row_sums_at;
  int64_t kept;  // columns
  int64_t kept_at;
  int64_t codes_at;
  int64_t bytes;
};

// Where the part that begins at block `begin` ends.
constexpr int64_t part_end(const Geometry& geometry, int64_t begin) {
  return kernel::part_end(begin, geometry.group_blocks, kStretchBlocks, geometry.blocks);
}

// The weights of a call.
struct PanelWeights {
  Geometry geometry;
  ScaleType scale_type;
  int zero;  // of a symmetric encoding; -1: read from the panel
  const uint8_t* packed;
};

// One call of a kernel: rows [row_begin, row_end) of the matrix, row_begin a multiple of kPanelRows.
template <typename Rows>
struct JobOn : PanelWeights {
  Rows activations;
  int64_t n;
  int64_t row_begin;
  int64_t row_end;
  float* out;
  int64_t ldo;
};
using Job = JobOn<Activations>;
using RowsJob = JobOn<I8Rows>;

void compute_scalar(const Job& job) noexcept;
void compute_avx2(const Job& job) noexcept;
void compute_avx512(const Job& job) noexcept;
void compute_rows_scalar(const RowsJob& job) noexcept;
void compute_rows_avx2(const RowsJob& job) noexcept;
void compute_rows_avx512(const RowsJob& job) noexcept;
void compute_rows_amx(const RowsJob& job) noexcept;  // the same bits as the others

void compute_amx(const PanelWeights& weights, const TileJob& job) noexcept;

}  // namespace nibble::kernel::affine
