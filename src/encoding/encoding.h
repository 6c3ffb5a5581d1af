// What an encoding is: how the numbers of a tensor are packed, with the scalar reference that every kernel is checked
// against.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace nibble::encoding {

struct BlockGrid;  // encoding/block_grid.h

enum class Family : std::uint8_t {
  kPlain,     // one number after another: f32 f16 bf16 f64, the fp8 scalars, integers
  kBlock,     // GGML: a fixed number of elements of one row in a fixed number of bytes, scales inside
  kAffine,    // codes, scales and zeros in separate parts (affine.h)
  kScaled,    // small floats and the scales of their tiles in separate parts (scaled.h)
  kCodebook,  // indices into a fixed table of levels, with scales, or into tables of centroids (codebook.h)
};

// How the scale of a symmetric affine encoding follows from the largest magnitude m of b bits (recipes: uniform
// affine).
enum class SymmetricRule : std::uint8_t {
  kRestricted,  // s = m / (2^(b-1) - 1), codes +-(2^(b-1) - 1)
  kFull,        // s = 2 m / (2^b - 1), codes -2^(b-1) .. 2^(b-1) - 1 (GPTQ)
  kHalf,        // s = m / ((2^b - 1) / 2), same codes (compressed-tensors); equal to kFull in exact arithmetic
  kAwq,         // s = m / (2^(b-1) - 1), codes -2^(b-1) .. 2^(b-1) - 1
};

enum class Granularity : std::uint8_t { kTensor, kChannel, kGroup };

// Parameters of the affine family: w = scale * (code - zero).
struct AffineParams {
  int bits = 8;
  Granularity granularity = Granularity::kChannel;
  std::int64_t group = 0;  // columns per group, when granularity is kGroup; the last group of a row may be shorter
  bool symmetric = true;   // no zeros part
  SymmetricRule rule = SymmetricRule::kFull;
  Dtype scale_dtype = Dtype::kF32;
  int least_zero = 0;  // of asymmetric codes, for who chooses them: the least zero that the file can say; in no name
  bool group_index = false;  // with kGroup: a part says the group of each column, which need not lie together
  std::int64_t kept = 0;     // columns whose weights lie in f16 beside the codes; not with group_index
};

// Parameters of the scaled floats: w = scale * code, one scale per tile of tile_rows x tile_cols; 0 is a whole column
// or row.
enum class FloatCode : std::uint8_t { kE4m3, kE5m2, kE2m1 };
struct ScaledParams {
  FloatCode code = FloatCode::kE4m3;
  std::int64_t tile_rows = 0;
  std::int64_t tile_cols = 0;
  Dtype scale_dtype = Dtype::kF32;  // or f16, bf16, f8_e8m0; f8_e4m3 with a global scale
  bool global_scale = false;        // one more for the matrix, which the scales are divided by
};

// Parameters of the codebook family. nf4, fp4: w = level * scale, a scale per `block` weights of the flattened tensor,
// with double_quant in 8 bits. kmeans: w = centroid, of 2^bits per tensor, row or group of weights.
enum class CodebookKind : std::uint8_t { kNf4, kFp4, kKmeans };
struct CodebookParams {
  CodebookKind kind = CodebookKind::kNf4;
  int bits = 4;
  std::int64_t block = 64;  // 0 of kKmeans
  bool double_quant = false;
  Granularity granularity = Granularity::kTensor;  // of kKmeans only, as is
  std::int64_t group = 0;                          // weights per group, when granularity is kGroup
};

// Interned: one object per canonical name for the life of the process, so equal pointers mean equal encodings.
struct EncodingInfo {
  std::string name;  // canonical: "q4_k", "f16", "int4-g128-asym"
  Family family{};
  Dtype dtype{};               // kPlain: the scalar
  int block_elements = 1;      // elements of a row that are packed together
  int block_bytes = 0;         // bytes of those (kPlain, kBlock)
  double bits_per_weight = 0;  // of plain and block encodings; of others without the per-row or per-tensor parts
  AffineParams affine;         // kAffine only
  ScaledParams scaled;         // kScaled only
  CodebookParams codebook;     // kCodebook only

  // Reference codec of kPlain and kBlock; n is a multiple of block_elements, addresses need no alignment. encode is
  // null for types that are only read; for block types it is GGML's reference rounding without importance (the `_ref`
  // functions), bit for bit. Block types want finite values, which whoever quantizes checks: with a NaN or an infinity
  // the bytes are still the same every time and no other block suffers, but that block's values mean nothing.
  void (*decode)(const std::byte* src, float* dst, std::int64_t n) noexcept = nullptr;
  void (*encode)(const float* src, std::byte* dst, std::int64_t n) noexcept = nullptr;
  // Of block types: where in a block its f16 scales and minima lie. The values are finite exactly when these are; empty
  // where that cannot be said, and values must be decoded.
  std::vector<int> f16_scales_at;
  // The block as a solver sees it, or null (plain types and read-only types).
  const BlockGrid* grid = nullptr;
};

// The encoding of that name; find() gives null for an unknown one, get() throws Error{kInvalidArgument} naming near
// ones. Names of the affine family are parsed:
// `int{2..8}-{tensor,channel,gN[-gidx]}[-asym|-restricted|-awq|-ct][-f16|-bf16]` (affine.h), and so are those of scaled
// floats: `fp8-{tensor,channel,block{R}x{C}}[-e5m2][-bf16|-f16|-e8m0]`, `mxfp8`, `mxfp4-hf`, `nvfp4-hf` (scaled.h; some
// have two names), and of codebooks: `{nf4,fp4}[-dq][-bN]`, `kmeans{2,3,4}-{tensor,channel,gN}` (codebook.h).
// Thread-safe.
const EncodingInfo* find(std::string_view name);
const EncodingInfo& get(std::string_view name);
// The fixed encodings (not the parameterised ones), in table order.
std::span<const EncodingInfo* const> all_entries();

// A part that the tensors of an encoding have.
struct PartPlan {
  PartRole role{};
  Dtype dtype{};
  Shape shape;
  // Each row of the tensor has a slice of its own, one behind the other; else the part is of all, or of the blocks of
  // the flattened tensor.
  bool by_rows = true;
};
// The parts of a tensor of that shape, in order. Throws Error{kFormat} when rows of that length do not exist.
std::vector<PartPlan> plan_parts(const EncodingInfo& info, const Shape& shape);

// Bytes of one row of `cols` elements (kPlain, kBlock). Throws Error{kFormat} when cols is no multiple of the block.
std::uint64_t row_bytes(const EncodingInfo& info, std::int64_t cols);
// Bytes of all parts of a tensor of `shape`.
std::uint64_t tensor_bytes(const EncodingInfo& info, const Shape& shape);
// The parts a tensor of that shape needs, allocated and not initialised.
Tensor allocate(const EncodingInfo& info, const Shape& shape);
// Where rows from `row` on, a multiple of row_step(), begin in each part of a tensor, in the order of plan_parts(); the
// start of a part that is of all rows.
struct RowParts {
  std::array<std::byte*, TensorView::kMaxParts> parts{};
};
RowParts rows_at(Tensor& tensor, std::int64_t row);
// Rows are encoded in steps of a multiple of this many, the last step what is left, and begin there: 1, but of
// encodings whose blocks or tiles go over the ends of rows as many as end with one, at most all rows.
std::int64_t row_step(const EncodingInfo& info, const Shape& shape);
bool fits(const EncodingInfo& info, const Shape& shape);  // do rows of this length exist in the encoding?

// Decodes rows [row_begin, row_end) of any encoding to f32, (row_end - row_begin, cols). The view's parts must have
// been checked by validate(). Reads without regard to alignment.
void decode_rows(const TensorView& view, std::int64_t row_begin, std::int64_t row_end, float* out);
// The first of rows [row_begin, row_end) that holds a NaN or an infinity, row_end when none does. Looks at the scales
// of a block and not at its codes where that is enough: about as fast as the bytes are read.
std::int64_t find_not_finite(const TensorView& view, std::int64_t row_begin, std::int64_t row_end);
// Do the codes and scales of `from` fit `to` as they are, in another order? repack_row() then moves those of one row.
bool repacks(const EncodingInfo& from, const EncodingInfo& to);
void repack_row(const TensorView& view, std::int64_t row, std::byte* out);
// Is a row of a plain or block encoding free of them?
bool row_is_finite(const EncodingInfo& info, const std::byte* row, std::int64_t cols) noexcept;
// Throws Error{kFormat} unless the parts have the roles, order, dtypes and sizes that the encoding and shape ask for.
void validate(const TensorView& view);

}  // namespace nibble::encoding
