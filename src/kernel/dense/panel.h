// How f32, f16 and bf16 weights lie in memory for the float kernels, and the plain types those share.
//
// Sixteen rows form a panel: for each column their sixteen values side by side, so that an activation broadcast feeds
// sixteen rows. Every path computes, with x in f32 and these roundings, so that all give the same bits:
//   for each stretch of 256 columns: s = 0; for each column: s = fma(f32(w), x, s);  then y = y + s
#pragma once

#include <stdint.h>

#include "kernel/tile.h"

namespace nibble::kernel::dense {

constexpr int kStretch = 256;

struct Job {
  const uint8_t* packed;
  int64_t cols;
  const uint8_t* x;  // rows of f32
  int64_t x_stride;  // bytes
  int64_t n;
  int64_t row_begin;
  int64_t row_end;
  float* out;
  int64_t ldo;
};

enum Scalar { kF32, kF16, kBf16, kScalarCount };
constexpr int kScalarBytes[kScalarCount] = {4, 2, 2};

using Compute = void (*)(const Job& job) noexcept;
extern const Compute kComputeAvx2[kScalarCount];
extern const Compute kComputeAvx512[kScalarCount];

// Of f16 and bf16: sums of products of the bf16 halves of both sides, columns in order.
using ComputeTiles = void (*)(const uint8_t* packed, int64_t cols, const TileJob& job) noexcept;
extern const ComputeTiles kComputeAmx[kScalarCount];

}  // namespace nibble::kernel::dense
