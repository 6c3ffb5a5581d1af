// Rows of the affine family while a method works on them.
#pragma once

#include <cstdint>
#include <vector>

#include "encoding/affine.h"
#include "method/quantizer.h"

namespace nibble::method {

struct AffineRows {
  std::int64_t n = 0, cols = 0, groups = 0, width = 0;  // width: columns of a full group
  std::vector<std::int16_t> codes;                      // (n, cols), as the formula uses them
  std::vector<encoding::ScaleZero> scales;              // (n, groups)

  AffineRows() = default;
  AffineRows(const encoding::AffineParams& params, std::int64_t n_rows, std::int64_t n_cols);
  encoding::ScaleZero& at(std::int64_t row, std::int64_t group) {
    return scales[static_cast<std::size_t>(row * groups + group)];
  }
  const encoding::ScaleZero& at(std::int64_t row, std::int64_t group) const {
    return scales[static_cast<std::size_t>(row * groups + group)];
  }
  std::int64_t group_end(std::int64_t group) const { return std::min(cols, (group + 1) * width); }
  std::vector<float> values() const;
  void copy_row(std::int64_t row, const AffineRows& from);
};

// Per-tensor scales are written with row 0.
void write_rows(const Job& job, const AffineRows& rows, std::int64_t row_begin, const RowsOut& out);

}  // namespace nibble::method
