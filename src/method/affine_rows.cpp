#include "method/affine_rows.h"

#include <algorithm>

namespace nibble::method {

using encoding::AffineParams;
using encoding::Granularity;

AffineRows::AffineRows(const AffineParams& params, std::int64_t n_rows, std::int64_t n_cols)
    : n(n_rows),
      cols(n_cols),
      groups(encoding::groups_per_row(params, n_cols)),
      width(encoding::group_columns(params, n_cols)),
      codes(static_cast<std::size_t>(n * cols)),
      scales(static_cast<std::size_t>(n * groups)) {}

std::vector<float> AffineRows::values() const {
  std::vector<float> out(codes.size());
  for (std::int64_t i = 0; i < n * cols; ++i) {
    const auto k = static_cast<std::size_t>(i);
    out[k] = encoding::decode_code(codes[k], at(i / cols, i % cols / width));
  }
  return out;
}

void AffineRows::copy_row(std::int64_t row, const AffineRows& from) {
  std::copy_n(from.codes.begin() + row * cols, cols, codes.begin() + row * cols);
  std::copy_n(from.scales.begin() + row * groups, groups, scales.begin() + row * groups);
}

void write_rows(const Job& job, const AffineRows& rows, std::int64_t row_begin, const RowsOut& out) {
  const AffineParams& params = job.target->affine;
  const std::uint64_t row_bytes = encoding::row_code_bytes(params, rows.cols);
  const bool per_tensor = params.granularity == Granularity::kTensor;
  const int offset = encoding::stored_offset(params);
  if (per_tensor && row_begin == 0 && rows.n > 0)
    encoding::store_scale_zero(params, rows.at(0, 0), out.parts[1], out.parts[2], 0);
  std::vector<std::uint8_t> stored(static_cast<std::size_t>(rows.cols));
  for (std::int64_t r = 0; r < rows.n; ++r) {
    for (std::int64_t c = 0; c < rows.cols; ++c)
      stored[static_cast<std::size_t>(c)] =
          static_cast<std::uint8_t>(rows.codes[static_cast<std::size_t>(r * rows.cols + c)] + offset);
    encoding::pack_codes(params.bits, stored.data(), rows.cols,
                         out.parts[0] + static_cast<std::uint64_t>(r) * row_bytes);
    for (std::int64_t g = 0; g < rows.groups && !per_tensor; ++g)
      encoding::store_scale_zero(params, rows.at(r, g), out.parts[1], out.parts[2], r * rows.groups + g);
  }
}

}  // namespace nibble::method
