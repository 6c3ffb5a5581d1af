// The affine family: w = scale * (code - zero), codes of 2 to 8 bits, one scale per tensor, row or group of columns.
//
// Name: int{2..8}-{tensor,channel,gN[-gidx]}[-keptK][-asym | -restricted | -awq | -ct][-f16 | -bf16]; without a rule
// suffix the symmetric rule is kFull ("-ct" is kHalf), without a scale suffix scales are f32. Parts, in this order:
//   kCodes   u8 (rows, row_code_bytes): each row a little-endian bit stream, column c in its bits c*b .. c*b + b - 1,
//   the
//            lowest bit of a byte first, the rest of the last byte zero. Stored codes are never negative: a symmetric
//            encoding stores code + 2^(b-1), an asymmetric one the code 0 .. 2^b - 1 itself.
//   kScales  in the scale dtype: (1) per tensor, (rows) per channel, (rows, groups_per_row) per group
//   kZeros   u8, shape of the scales; asymmetric encodings only (a symmetric one has zero = 0)
//   kGroupIndex  i32 (cols), the group of each column; "-gidx" only (GPTQ's act-order). Without it column c is of group
//            c / N.
//   kOutliers  f16 (rows, K), "-keptK" only: the weights of K columns, whose codes count for nothing (LLM.int8(), arXiv
//            2208.07339, 3.2: features of the inputs that are outliers are multiplied in 16 bits)
//   kOutlierColumns  i32 (K): which those are, ascending
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "encoding/encoding.h"

namespace nibble::encoding {

// The interned encoding of a name or of parameters. The name: null unless it is canonical. The parameters: throws
// Error{kInvalidArgument} for values outside the family; `group` counts only with kGroup, `rule` only when symmetric.
const EncodingInfo* find_affine(std::string_view name);
const EncodingInfo& affine_encoding(const AffineParams& params);

// The same without kept columns.
const EncodingInfo& without_kept(const EncodingInfo& info);

// Codes as the formula uses them: around 0 for a symmetric encoding, 0 .. 2^b - 1 for an asymmetric one.
struct CodeRange {
  int min = 0;
  int max = 0;
};
CodeRange code_range(const AffineParams& params);
int stored_offset(const AffineParams& params);  // stored code = code + this

std::int64_t groups_per_row(const AffineParams& params, std::int64_t cols);  // 1 unless kGroup; the last may be short
std::int64_t group_columns(const AffineParams& params, std::int64_t cols);   // columns of a full group
std::uint64_t row_code_bytes(const AffineParams& params, std::int64_t cols);
Shape scales_shape(const AffineParams& params, const Shape& shape);
// The group of a column; `index` is the bytes of kGroupIndex, null without that part.
std::int64_t group_of_column(const AffineParams& params, std::int64_t cols, const std::byte* index, std::int64_t col);
// The columns of a valid view by their group, then by their number: as they come where groups are not listed.
std::vector<std::int32_t> columns_by_group(const TensorView& view);
// Would the columns need no list in that order, as every group has as many as the encoding says (the last the rest)?
bool has_even_groups(const TensorView& view);

struct ScaleZero {
  float scale = 0;  // a value of the scale dtype, at least 0
  int zero = 0;
};
// Min-max scale for finite values in [lowest, highest]. Symmetric: the rule on the larger magnitude. Asymmetric: the
// range is widened to hold 0, scale = (b - a) / (2^bits - 1), zero = round(-a / scale). A range without width, or whose
// scale rounds to zero in the scale dtype, gives scale 0; a scale beyond the dtype gives its largest finite value.
ScaleZero scale_of_range(const AffineParams& params, float lowest, float highest);

// The nearest value of a scale dtype, at most its largest finite one.
float round_scale(Dtype dtype, float scale);

// round(value / scale) + zero, ties to even, held in the code range. NaN and scale 0 give `zero`; infinities the end
// codes.
int nearest_code(const AffineParams& params, float value, const ScaleZero& at);
inline float decode_code(int code, const ScaleZero& at) { return at.scale * static_cast<float>(code - at.zero); }

// Bit stream of one row <-> its stored codes, one byte each. pack_codes writes row_code_bytes() bytes.
void pack_codes(int bits, const std::uint8_t* stored, std::int64_t cols, std::byte* dst) noexcept;
void unpack_codes(int bits, const std::byte* src, std::int64_t cols, std::uint8_t* stored) noexcept;

// Scales and zeros are read and written one by one: index = row * groups_per_row + group (per tensor: 0).
ScaleZero load_scale_zero(const AffineParams& params, const std::byte* scales, const std::byte* zeros,
                          std::int64_t index);
void store_scale_zero(const AffineParams& params, const ScaleZero& at, std::byte* scales, std::byte* zeros,
                      std::int64_t index);

// Reference: one row to nearest codes with the given scale and zero of each of its groups, packed into `codes`.
void quantize_row(const AffineParams& params, const float* row, std::int64_t cols, const ScaleZero* groups,
                  std::byte* codes);

}  // namespace nibble::encoding
