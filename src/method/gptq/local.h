// One block of one row made better in a quadratic measure: plain data between the driver (block.cpp) and its builds per
// instruction set.
#pragma once

#include <stdint.h>

namespace nibble::method::gptq {

constexpr int kMaxBlock = 256, kMaxSubs = 16;

// The grid of a block: value = d * scale * level - dmin * min (encoding/block_grid.h).
struct LocalGrid {
  int block, sub, n_subs;  // n_subs 1: scale and min are 1, d and dmin belong to the sub-block
  bool has_min;
  float scale_min, scale_max, min_max;
  float level_lo, level_hi;
  const float* cells;  // of non-linear levels, see level_cells(); null: the levels are the integers
};

// The measure of an error e of the block: e m eᵀ.
struct LocalMetric {
  const float* m;           // (block, block)
  const float* sub_factor;  // (n_subs, sub, sub): upper, Uᵀ U the inverse of a sub-block of m, damped
};

struct LocalState {
  float d, dmin;
  float scale[kMaxSubs], min[kMaxSubs];
  float level[kMaxBlock];
  float value[kMaxBlock];
  float gradient[kMaxBlock];  // (value - target) m, and what errors elsewhere add to it
};

// Lowers the measure by changes that each lower it: sub-scales and mins with codes of their own, d and dmin with codes
// fixed, codes one by one; `rounds` times or until nothing changes.
using Refine = void (*)(const LocalGrid& grid, const LocalMetric& metric, int rounds, LocalState& state) noexcept;
// Codes of the whole block from its first column on: the error of each goes to the later ones by `factor` (block,
// block), upper. The block's scales are those of `state`; target: (block), lost; errors: (block), each divided by its
// pivot.
using Sweep = void (*)(const LocalGrid& grid, const float* factor, int64_t stride, float* target, float* errors,
                       LocalState& state) noexcept;

struct LocalKernel {
  Refine refine;
  Sweep sweep;
};
extern const LocalKernel kLocalScalar, kLocalAvx2;

}  // namespace nibble::method::gptq
