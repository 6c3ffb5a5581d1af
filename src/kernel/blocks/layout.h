// The panel layout of panel.h as a WeightLayout: which encodings it holds, packing, and the exact rows back.
#pragma once

#include "kernel/blocks/panel.h"
#include "kernel/linear.h"

namespace nibble::kernel::blocks {

// Index into kFormats for an encoding, or -1.
int format_index(const encoding::EncodingInfo& encoding);
// The sixteen levels of its codes, or null.
const std::int8_t* level_table(const encoding::EncodingInfo& encoding);
std::uint64_t panel_bytes(const Format& format, std::int64_t cols);
struct SubScale {
  float scale;
  float min;
};
// Scale and min of sub-block `sub` (within the super-block whose header this is) of one row.
SubScale sub_scale(const Format& format, const std::uint8_t* header, int sub, int row) noexcept;

std::uint64_t packed_bytes(const MatrixInfo& matrix);
void pack(const TensorView& weights, const std::int32_t* row_map, std::int64_t row_begin, std::int64_t row_end,
          std::byte* packed);
void unpack_row(const MatrixInfo& matrix, const std::byte* packed, std::int64_t row, float* out) noexcept;

}  // namespace nibble::kernel::blocks
