// The panel layout of panel.h as a WeightLayout: which encodings it holds, packing, and the exact rows back.
#pragma once

#include "kernel/linear.h"
#include "kernel/scaled/panel.h"

namespace nibble::kernel::scaled {

// Scaled floats in rows of whole blocks whose tiles are whole halves of a block wide, and GGUF's blocks of NVFP4.
bool accepts(const encoding::EncodingInfo& info, std::int64_t cols);
Geometry geometry_of(const encoding::EncodingInfo& info, std::int64_t cols);

std::uint64_t packed_bytes(const MatrixInfo& matrix);
void pack(const TensorView& weights, const std::int32_t* row_map, std::int64_t row_begin, std::int64_t row_end,
          std::byte* packed);
void unpack_row(const MatrixInfo& matrix, const std::byte* packed, std::int64_t row, float* out) noexcept;

}  // namespace nibble::kernel::scaled
