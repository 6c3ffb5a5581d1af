// How GGML's reference rounding (no importance) picks the fields of a block: scale searches shared by the block types.
// The order of every floating-point operation is part of the contract: the bytes equal the reference's.
#pragma once

#include <cstdint>

#include "encoding/block_grid.h"

namespace nibble::encoding {

// Sub-blocks whose largest magnitude is below this count as zero.
inline constexpr float kZeroBlock = 1e-15f;

// Nearest integer, ties to even, by the mantissa of value + 1.5 * 2^23; any other value than |v| < 2^22 wraps (never
// undefined).
int nearest_int(float value) noexcept;
// Truncation towards zero; what no int holds gives 0.
int truncate_int(float value) noexcept;
// The (signed) value of largest magnitude, the first of equals; 0 for none.
float signed_max(const float* x, int n) noexcept;

// q4_0, q5_0: d = signed max / code_min, nearest code.
void choose_signed_max(const BlockGrid& grid, const float* x, BlockFields& fields) noexcept;
// q4_1, q5_1: d and m from smallest and largest.
void choose_min_max(const BlockGrid& grid, const float* x, BlockFields& fields) noexcept;

// A scan over inverse scales (levels + first + step * i) / (max - min), i = 0..steps, each refined by weighted least
// squares.
struct ScaleMinScan {
  float first;
  float step;
  int steps;
  bool absolute;  // weights |x| and the error |difference|; else rms + |x| and the square
};
// q2_k, q4_k, q5_k.
void choose_scale_min(const BlockGrid& grid, const ScaleMinScan& scan, const float* x, BlockFields& fields) noexcept;

// q3_k: the scale of n values by rounding once and five sweeps that re-round one code at a time. Codes -levels ..
// levels-1.
float sweep_scale(const float* x, int n, int levels, std::int8_t* code) noexcept;
// q6_k: the best of 19 scales around -levels / signed max, each with its weighted least-squares optimum, weights x^2.
float scan_scale(const float* x, int n, int levels, std::int8_t* code) noexcept;
// Codes again, for the scales as stored.
void reround_symmetric(const BlockGrid& grid, const float* x, BlockFields& fields) noexcept;

// The levels of iq4_nl and iq4_xs.
extern const std::int8_t kIq4Levels[16];
// Index of the nearest of those levels, the upper of two equally near; NaN gives 0.
int nearest_iq4_level(float value) noexcept;
// Least-squares scale over the levels; `tries` further inverse scales (i + levels[0]) / signed max, |i| <= tries.
float level_scale(const float* x, int n, int tries, std::int8_t* code) noexcept;

}  // namespace nibble::encoding
