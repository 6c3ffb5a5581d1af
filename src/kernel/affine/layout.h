// The panel layout of panel.h as a WeightLayout: which encodings it holds, packing, and the exact rows back.
#pragma once

#include "kernel/affine/panel.h"
#include "kernel/linear.h"

namespace nibble::kernel::affine {

// Affine encodings whose groups are whole blocks. Listed groups must be even (encoding::has_even_groups).
bool accepts(const encoding::EncodingInfo& info, std::int64_t cols);
bool accepts_kept(const encoding::EncodingInfo& info, std::int64_t cols);  // those that keep columns, too
Geometry geometry_of(const encoding::EncodingInfo& info, std::int64_t cols);

std::uint64_t packed_bytes(const MatrixInfo& matrix);
void pack(const TensorView& weights, const std::int32_t* row_map, std::int64_t row_begin, std::int64_t row_end,
          std::byte* packed);
const std::byte* panels_of(const MatrixInfo& matrix, const std::byte* packed) noexcept;
const std::int32_t* column_order(const MatrixInfo& matrix, const std::byte* packed) noexcept;
void unpack_row(const MatrixInfo& matrix, const std::byte* packed, std::int64_t row, float* out) noexcept;

}  // namespace nibble::kernel::affine
