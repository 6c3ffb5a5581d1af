// How weights of the scaled floats lie in memory for the float kernels, and the plain types those share.
//
// A panel (kernel/panel.h) is a header and its blocks of 32 columns one after another, codes of 8 bits or of 4. The
// header: the scales of the tiles of columns [groups][16], a row each in the dtype of the encoding, padded to 64 bytes;
// then, if the encoding has a global scale, that of each row f32 [16]. Columns are counted in halves of a block: with 8
// bits a half is 256 bytes, with 4 bits the low or the high nibbles of 256 bytes.
//
// All codes are exact in bf16. Every path but the tiles computes, with x in f32, for row r and token t, in this order
// and with these roundings, so that all give the same bits:
//   for each stretch of kStretchHalves halves, for each part of it that lies in one group:
//     s = 0; for each column: s = fma(code, x, s);  then y = fma(s, scale, y)
//   then y = y / global, if there is one
#pragma once

#include <stdint.h>

#include "kernel/panel.h"
#include "kernel/tile.h"

namespace nibble::kernel::scaled {

constexpr int kHalfBlock = kBlock / 2;                     // columns
constexpr int kStretchHalves = 8;                          // so the codes of two panels stay in the first-level cache
constexpr int kStretch = kStretchHalves * kHalfBlock;      // columns
constexpr int kHalfVectors = 4;                            // of 64 bytes that hold the codes of half a block
constexpr int kHalfBytes = kHalfVectors * kPanelRows * 4;  // that they fill

enum Form { kE4m3, kE5m2, kE2m1, kFormCount };  // in the order of encoding::FloatCode
enum class ScaleType { kF32, kF16, kBf16, kE8m0, kE4m3 };

struct FloatBits {
  int bits;
  int mantissa;
  int bias;
};
constexpr FloatBits kFloatBits[kFormCount] = {{8, 3, 7}, {8, 2, 15}, {4, 1, 1}};
constexpr CodePlanes planes_of(Form form) { return {kFloatBits[form].bits, 0}; }

// The value of a code as bf16.
constexpr uint16_t bf16_of(Form form, int code) {
  const FloatBits at = kFloatBits[form];
  const int sign = code >> (at.bits - 1), magnitude = code & ((1 << (at.bits - 1)) - 1), one = 1 << at.mantissa;
  int exponent = magnitude >> at.mantissa, significand = (magnitude & (one - 1)) | one;
  if (exponent == 0) {
    significand ^= one;
    for (exponent = 1; significand != 0 && significand < one; --exponent) significand *= 2;
  }
  const int biased = significand == 0 ? 0 : exponent - at.bias + 127;
  return static_cast<uint16_t>(sign << 15 | biased << 7 | (significand & (one - 1)) << (7 - at.mantissa));
}

// A panel, in bytes.
struct Geometry {
  Form form;
  ScaleType scale_type;
  bool has_global;
  int64_t halves;        // of blocks in a row
  int64_t group_halves;  // of a full group
  int64_t globals_at;    // from the start of the panel
  int64_t codes_at;
  int64_t bytes;
};

// Where the part that begins at half `begin` ends.
constexpr int64_t part_end(const Geometry& geometry, int64_t begin) {
  return kernel::part_end(begin, geometry.group_halves, kStretchHalves, geometry.halves);
}

// From the first of a panel's codes to those of a half, and the bit of their bytes that they begin at.
template <Form kForm>
constexpr int64_t half_at(int64_t half) {
  return (kFloatBits[kForm].bits == 8 ? half : half / 2) * kHalfBytes;
}
template <Form kForm>
constexpr int half_bit(int64_t half) {
  return kFloatBits[kForm].bits == 8 ? 0 : static_cast<int>(half % 2) * 4;
}

// One call of a kernel: rows [row_begin, row_end) of the matrix, row_begin a multiple of kPanelRows.
struct Job {
  Geometry geometry;
  const uint8_t* packed;
  const uint8_t* x;  // rows of f32
  int64_t x_stride;  // bytes
  int64_t n;
  int64_t row_begin;
  int64_t row_end;
  float* out;
  int64_t ldo;
};

void compute_avx2(const Job& job) noexcept;
void compute_avx512(const Job& job) noexcept;
void compute_amx(const Geometry& geometry, const uint8_t* packed, const TileJob& job) noexcept;

}  // namespace nibble::kernel::scaled
