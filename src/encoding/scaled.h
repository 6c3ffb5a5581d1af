// Scaled floats, the form of FP8 and micro-scaled checkpoints: w = scale * code, codes of 8 or 4 bits, one scale per
// tile of rows and columns.
//
// Names: fp8-{tensor,channel,block{R}x{C}}[-e5m2][-bf16 | -f16 | -e8m0]: codes in E4M3 ("fn") or E5M2, without a suffix
// the scales are f32. fp8-block{N} is another name of fp8-block{N}x{N}. mxfp8[-e5m2] (OCP MX) is
// fp8-block1x32[-e5m2]-e8m0. mxfp4-hf: E2M1, blocks of 32 columns with a power of two each (OCP MX). nvfp4-hf: E2M1,
// blocks of 16 columns with a scale in E4M3 and one more, f32, for the matrix: w = scale / global * code. Parts, in
// this order:
//   kCodes   u8 (rows, row bytes). E4M3, E5M2: a byte each. E2M1: column 2i in the low half of byte i, column 2i + 1
//            in the high half (the mxfp4 of GGUF has columns i and i + 16 of a block there).
//   kScales  in the scale dtype (matrices, tile rows, tile columns); tiles at the right and lower edges may be smaller.
//            The last two dimensions of a tensor are a matrix, and each matrix begins its own tiles.
//   kGlobalScale  f32 (matrices); nvfp4-hf only
// A scale of E4M3 has no sign: a code with one is NaN.
#pragma once

#include <cstdint>
#include <string_view>

#include "encoding/encoding.h"

namespace nibble::encoding {

// The interned encoding of a name (null unless it is one of those above) or of parameters (throws
// Error{kInvalidArgument} for values outside the family).
const EncodingInfo* find_scaled(std::string_view name);
const EncodingInfo& scaled_encoding(const ScaledParams& params);

std::uint64_t scaled_row_bytes(const ScaledParams& params, std::int64_t cols);  // of codes
std::int64_t scales_per_row(const ScaledParams& params, std::int64_t cols);
Shape scaled_scales_shape(const ScaledParams& params, const Shape& shape);
// Where a row of a view lies.
struct ScaledRow {
  const std::byte* codes;
  const std::byte* scales;
  float global = 1;  // what the scales are divided by
};
ScaledRow scaled_row(const TensorView& view, std::int64_t row);
// Bytes of a part before what begins with a row, a multiple of scaled_row_step(): none where it is of all rows.
std::uint64_t scaled_part_begin(const ScaledParams& params, const Shape& shape, PartRole role, std::int64_t row);
std::int64_t scaled_row_step(const ScaledParams& params, const Shape& shape);

float load_float_scale(Dtype dtype, const std::byte* scales, std::int64_t index) noexcept;
// `scale` as round_float_scale() gives it.
void store_float_scale(Dtype dtype, float scale, std::byte* scales, std::int64_t index) noexcept;
// The nearest scale above 0 that the type holds, of e8m0 the power of two below; where that is none, 1: tiles of zeros
// have a scale, too, so that nobody divides by 0.
float round_float_scale(Dtype dtype, float scale);
// The scale under which the largest magnitude of a tile becomes the largest code. e8m0: floor(log2(magnitude)) less the
// exponent of the largest code (OCP MX 1.0, section 6.3), where what is above the largest code saturates.
float scale_of_magnitude(const ScaledParams& params, float magnitude, float global);
// The global scale of a matrix: the largest scale becomes the largest of its type. 1 unless the encoding has one.
float global_of_magnitude(const ScaledParams& params, float magnitude);

// Codes of a row, one a byte, as they are stored.
void pack_float_codes(const ScaledParams& params, const std::uint8_t* codes, std::int64_t cols,
                      std::byte* dst) noexcept;
// Columns [begin, begin + count) of a row of `cols`, whose codes and scales begin at the addresses; `begin` is even.
void decode_scaled(const ScaledParams& params, std::int64_t cols, const std::byte* codes, const std::byte* scales,
                   std::int64_t begin, std::int64_t count, float* out, float global = 1) noexcept;
// Is every value of such a row a number?
bool scaled_row_is_finite(const ScaledParams& params, std::int64_t cols, const ScaledRow& row) noexcept;

}  // namespace nibble::encoding
