// The codebook family: a code of 2 to 4 bits is an index into a table of levels.
//
// Names: {nf4,fp4}[-dq][-b32 | -b128 | ... | -b4096], w = level * scale as bitsandbytes has it: the tensor flattened
// row by row is cut into blocks of 64 (or as the name says) weights, which may go over the ends of rows; the scale is
// the largest magnitude of a block and the levels are fixed. Parts, in this order:
//   kCodes        u8 (ceil(n / 2)): weight 2i of the flattened tensor in the high half of byte i, 2i + 1 in the low
//   half kScales       f32 (blocks); with -dq (double quantization) u8, indices into dynamic_map() kSuperScales  f32
//   (ceil(blocks / 256)), kGlobalScale f32 (1); only with -dq:
//                 scale = map[code] * super_scale + global
// kmeans{2,3,4}-{tensor,channel,gN}, w = centroid: a table of centroids per tensor, row or group of N weights: columns
// of a row, or, where a row has fewer than N, as many whole rows as N weights fill. Parts:
//   kCodes        u8 (rows, row bytes): each row a little-endian bit stream as in the affine family
//   kCodebook     f16 (2^bits) per tensor, (rows, 2^bits) per channel, (row groups, groups of a row, 2^bits) per group
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "encoding/encoding.h"

namespace nibble::encoding {

// The interned encoding of a name (null unless it is canonical) or of parameters (throws Error{kInvalidArgument} for
// values outside the family).
const EncodingInfo* find_codebook(std::string_view name);
const EncodingInfo& codebook_encoding(const CodebookParams& params);

std::vector<PartPlan> codebook_parts(const CodebookParams& params, const Shape& shape);
// Where what belongs to rows from `row` on, a multiple of row_step(), begins in a part; 0 in those of all rows.
std::uint64_t codebook_part_begin(const CodebookParams& params, const Shape& shape, PartRole role, std::int64_t row);
// The values of rows [row_begin, row_end) of a tensor in this family.
void decode_codebook_rows(const TensorView& view, std::int64_t row_begin, std::int64_t row_end, float* out);
bool codebook_row_is_finite(const TensorView& view, std::int64_t row);

// --- nf4 and fp4 ---
constexpr std::int64_t kSuperBlock = 256;  // scales that share a super scale
bool has_blocks(const CodebookParams& params);
// By code; of fp4 both zeros are +0.
const std::array<float, 16>& levels_of(CodebookKind kind);
// The code whose level is nearest to `value` in -1 .. 1, the lower level at equal distance.
int nearest_level(CodebookKind kind, float value);
// The scale of a block, with -dq made of its three parts.
float block_scale(const TensorView& view, std::int64_t block);
inline std::int64_t block_count(std::int64_t elements, std::int64_t block) {
  return elements / block + (elements % block != 0 ? 1 : 0);
}
inline int nibble_at(const std::byte* codes, std::int64_t element) {
  return std::to_integer<int>(codes[element / 2]) >> (element % 2 == 0 ? 4 : 0) & 15;
}
// The signed dynamic 8-bit map, ascending, and the index for `value` in -1 .. 1 as bitsandbytes has it on CPUs: nearest
// to the value rounded to 16 bits.
const std::array<float, 256>& dynamic_map();
int nearest_dynamic(float value);
// That of numbers that are never negative: twice as fine.
const std::array<float, 256>& unsigned_dynamic_map();

// --- kmeans ---
inline int centroid_count(const CodebookParams& params) { return 1 << params.bits; }
std::int64_t centroid_columns(const CodebookParams& params, std::int64_t cols);  // that share a table
std::int64_t tables_per_row(const CodebookParams& params, std::int64_t cols);    // 1 unless per group
std::int64_t rows_per_table(const CodebookParams& params, std::int64_t cols);    // 1, or more of groups beyond a row
std::uint64_t codebook_row_bytes(const CodebookParams& params, std::int64_t cols);
// Of a row's table, as f32. centroids: centroid_count() values.
void load_centroids(const TensorView& view, std::int64_t row, std::int64_t table, float* centroids);

}  // namespace nibble::encoding
