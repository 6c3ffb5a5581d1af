// Activations in int8 with one scale and one zero point for a whole row: the types that the kernels of such rows share.
// Plain types and constants only, so that files for one instruction set may include it.
#pragma once

#include <stdint.h>

#include "kernel/panel.h"

namespace nibble::kernel {

// A row: int8 codes; i32 sums of the codes before each block of 32 columns and behind the last one; its header; then,
// where inputs may be kept as they are, their columns i32 and their values f32, as many of each as there are columns.
// Each array is padded to 64 bytes.
struct I8Rows {
  const uint8_t* rows;
  int64_t stride;   // bytes, an odd number of lines: rows a power of two apart crowd into few sets of the caches
  int64_t sums_at;  // offsets in a row
  int64_t header_at;
  int64_t columns_at;
  int64_t values_at;
};
// An input is scale * (code - zero); those that are kept have the code of 0 and add value * weight, in order: first the
// columns that the weights keep, then others.
struct I8RowHeader {
  float scale;
  float zero;
  int64_t kept;
};

inline const I8RowHeader& header_of(const I8Rows& a, int64_t token) {
  return *reinterpret_cast<const I8RowHeader*>(a.rows + token * a.stride + a.header_at);
}
inline const int32_t* sums_of(const I8Rows& a, int64_t token) {
  return reinterpret_cast<const int32_t*>(a.rows + token * a.stride + a.sums_at);
}
inline const int32_t* kept_columns(const I8Rows& a, int64_t token) {
  return reinterpret_cast<const int32_t*>(a.rows + token * a.stride + a.columns_at);
}
inline const float* kept_values(const I8Rows& a, int64_t token) {
  return reinterpret_cast<const float*>(a.rows + token * a.stride + a.values_at);
}

// What a row holds: the least and the largest of its numbers below `threshold` in magnitude, with 0; the others, and
// what is no number, are listed.
struct RowScan {
  float least;
  float largest;
  int64_t kept;
};
// x (cols), cols a multiple of 32; columns and values have room for all, or are null: they are not listed then.
using ScanRow = RowScan (*)(const float* x, int64_t cols, float threshold, int32_t* columns, float* values);

// Rounds a row to clamp(round(x * inverse), low, high) + shift, to nearest even; those that a scan lists to `shift`.
struct RowRounding {
  float inverse;
  float low;
  float high;
  float threshold;
  int shift;
};
using RoundRow = void (*)(const RowRounding& how, const float* x, int64_t cols, int8_t* codes, int32_t* sums);

RowScan scan_row_avx2(const float* x, int64_t cols, float threshold, int32_t* columns, float* values);
RowScan scan_row_avx512(const float* x, int64_t cols, float threshold, int32_t* columns, float* values);
void round_row_avx2(const RowRounding& how, const float* x, int64_t cols, int8_t* codes, int32_t* sums);
void round_row_avx512(const RowRounding& how, const float* x, int64_t cols, int8_t* codes, int32_t* sums);

}  // namespace nibble::kernel
