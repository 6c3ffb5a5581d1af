// Weights of the codebook encodings as panel.h describes them: packed from an encoded tensor, and back.
#pragma once

#include "kernel/codebook/panel.h"
#include "kernel/linear.h"

namespace nibble::kernel::codebook {

bool accepts(const encoding::EncodingInfo& info, std::int64_t cols);
Geometry geometry_of(const encoding::EncodingInfo& info, std::int64_t cols);

std::uint64_t packed_bytes(const MatrixInfo& matrix);
void pack(const TensorView& weights, const std::int32_t* row_map, std::int64_t row_begin, std::int64_t row_end,
          std::byte* packed);
void unpack_row(const MatrixInfo& matrix, const std::byte* packed, std::int64_t row, float* out) noexcept;

// The codes of one row of a panel for columns [32 begin, 32 end); `codes` the start of the panel's codes.
void load_codes(const Geometry& geometry, const std::uint8_t* codes, int lane, std::int64_t begin, std::int64_t end,
                std::uint8_t* code) noexcept;

}  // namespace nibble::kernel::codebook
