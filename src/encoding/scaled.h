// Scaled floats, the form of FP8 and MXFP4 checkpoints: w = scale * code, codes of 8 or 4 bits, one scale per tile of
// rows and columns.
//
// Names: fp8-{tensor,channel,block{R}x{C}}[-bf16 | -f16 | -e8m0], without a suffix the scales are f32; and mxfp4-hf,
// blocks of 32 columns with a power of two each (OCP MX). Parts, in this order:
//   kCodes   u8 (rows, row bytes). fp8: E4M3 ("fn"), a byte each. mxfp4-hf: E2M1, column 2i in the low half of byte i,
//            column 2i + 1 in the high half (the mxfp4 of GGUF has columns i and i + 16 of a block there).
//   kScales  in the scale dtype (matrices, tile rows, tile columns); tiles at the right and lower edges may be smaller.
//            The last two dimensions of a tensor are a matrix, and each matrix begins its own tiles.
#pragma once

#include <cstdint>
#include <string_view>

#include "encoding/encoding.h"

namespace nibble::encoding {

// The interned encoding of a name (null unless it is canonical) or of parameters (throws Error{kInvalidArgument} for
// values outside the family).
const EncodingInfo* find_scaled(std::string_view name);
const EncodingInfo& scaled_encoding(const ScaledParams& params);

std::uint64_t scaled_row_bytes(const ScaledParams& params, std::int64_t cols);  // of codes
std::int64_t scales_per_row(const ScaledParams& params, std::int64_t cols);
Shape scaled_scales_shape(const ScaledParams& params, const Shape& shape);
// Where a row of a view lies.
struct ScaledRow {
  const std::byte* codes;
  const std::byte* scales;
};
ScaledRow scaled_row(const TensorView& view, std::int64_t row);

// Columns [begin, begin + count) of a row of `cols`, whose codes and scales begin at the addresses; `begin` is even.
void decode_scaled(const ScaledParams& params, std::int64_t cols, const std::byte* codes, const std::byte* scales,
                   std::int64_t begin, std::int64_t count, float* out) noexcept;
// Is every value of such a row a number?
bool scaled_row_is_finite(const ScaledParams& params, std::int64_t cols, const std::byte* codes,
                          const std::byte* scales) noexcept;

}  // namespace nibble::encoding
