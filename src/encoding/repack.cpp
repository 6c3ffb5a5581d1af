#include "encoding/repack.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "encoding/affine.h"
#include "encoding/block_codec.h"
#include "encoding/block_grid.h"
#include "tensor/half.h"

namespace nibble::encoding {

namespace {

constexpr float kLeastNormalF16 = 0x1p-14f;
constexpr float kLargestF16 = 65504.0f;

// A block type of whole numbers with one scale for the block: its bits.
std::optional<int> integer_bits(const EncodingInfo& info) {
  const BlockGrid* grid = info.grid;
  if (grid == nullptr || grid->pack == nullptr || grid->unpack == nullptr) return std::nullopt;
  if (grid->table != nullptr || grid->sub != grid->block) return std::nullopt;
  for (int bits = 2; bits <= 8; ++bits) {
    const int half = 1 << (bits - 1);
    const bool all = grid->has_min ? grid->code_min == 0 && grid->code_max == 2 * half - 1
                                   : grid->code_max == half - 1 && (grid->code_min == -half || bits == 8);
    if (all) return bits;
  }
  return std::nullopt;
}

// Do integers of `params` lie in blocks of `block` with the same codes?
bool same_codes(const AffineParams& params, const EncodingInfo& block) {
  return !params.group_index && params.kept == 0 && integer_bits(block) == params.bits &&
         params.symmetric != block.grid->has_min;
}

Repacking affine_to_block(const TensorView& view, const EncodingInfo& to) {
  const AffineParams& params = view.encoding->affine;
  if (!same_codes(params, to) || view.cols() % to.grid->block != 0) return Repacking::kNo;
  if (group_columns(params, view.cols()) % to.grid->block != 0) return Repacking::kNo;
  bool exact = params.symmetric;  // minima are rounded
  const std::int64_t n = scales_shape(params, view.shape).elements();
  const std::byte* scales = view.part(PartRole::kScales).bytes.data();
  const std::byte* zeros = params.symmetric ? nullptr : view.part(PartRole::kZeros).bytes.data();
  for (std::int64_t i = 0; i < n; ++i) {
    const ScaleZero at = load_scale_zero(params, scales, zeros, i);
    if (f16_to_f32(f32_to_f16(at.scale)) == at.scale &&
        std::fabs(at.scale) * static_cast<float>(at.zero) <= kLargestF16)
      continue;
    const float least = std::fabs(at.scale), largest = least * static_cast<float>(std::max(at.zero, 1));
    if (!(least >= kLeastNormalF16 && largest <= kLargestF16)) return Repacking::kNo;
    exact = false;
  }
  return exact ? Repacking::kExact : Repacking::kRounded;
}

Repacking block_to_affine(const EncodingInfo& from, const EncodingInfo& to) {
  const AffineParams& params = to.affine;
  const bool fits = same_codes(params, from) && params.symmetric && params.granularity == Granularity::kGroup &&
                    params.group == from.grid->block && params.scale_dtype != Dtype::kBf16;
  return fits ? Repacking::kExact : Repacking::kNo;
}

void affine_row_to_blocks(const TensorView& view, std::int64_t row, const EncodingInfo& to, std::byte* out) {
  const AffineParams& params = view.encoding->affine;
  const std::int64_t cols = view.cols(), group = group_columns(params, cols), groups = groups_per_row(params, cols);
  const std::byte* scales = view.part(PartRole::kScales).bytes.data();
  const std::byte* zeros = params.symmetric ? nullptr : view.part(PartRole::kZeros).bytes.data();
  std::vector<std::uint8_t> stored(static_cast<std::size_t>(cols));
  unpack_codes(params.bits, view.data().data() + static_cast<std::uint64_t>(row) * row_code_bytes(params, cols), cols,
               stored.data());
  const int offset = stored_offset(params);
  for (std::int64_t c = 0; c < cols; c += to.grid->block, out += to.block_bytes) {
    const std::int64_t index = params.granularity == Granularity::kTensor ? 0 : row * groups + c / group;
    const ScaleZero at = load_scale_zero(params, scales, zeros, index);
    BlockFields fields;
    fields.d = at.scale;
    fields.dmin = at.scale * static_cast<float>(at.zero);
    fields.scale[0] = 1;
    fields.min[0] = 1;
    for (std::int64_t i = 0; i < to.grid->block; ++i)
      fields.code[i] = static_cast<std::int8_t>(stored[static_cast<std::size_t>(c + i)] - offset);
    to.grid->pack(fields, out);
  }
}

void blocks_to_affine_row(const TensorView& view, std::int64_t row, const EncodingInfo& to, const RowParts& out) {
  const EncodingInfo& from = *view.encoding;
  const std::int64_t cols = view.cols();
  const std::byte* block = view.data().data() + static_cast<std::uint64_t>(row) * row_bytes(from, cols);
  std::vector<std::uint8_t> stored(static_cast<std::size_t>(cols));
  const int offset = stored_offset(to.affine);
  for (std::int64_t c = 0; c < cols; c += from.grid->block, block += from.block_bytes) {
    BlockFields fields;
    from.grid->unpack(block, fields);
    for (std::int64_t i = 0; i < from.grid->block; ++i)
      stored[static_cast<std::size_t>(c + i)] = static_cast<std::uint8_t>(fields.code[i] + offset);
    store_scale_zero(to.affine, {fields.d, 0}, out.parts[1], nullptr, c / from.grid->block);
  }
  pack_codes(to.affine.bits, stored.data(), cols, out.parts[0]);
}

// From GGUF's order of mxfp4.
void mxfp4_row_to_parts(const TensorView& view, std::int64_t row, const RowParts& out) {
  const EncodingInfo& from = *view.encoding;
  const std::byte* block = view.data().data() + static_cast<std::uint64_t>(row) * row_bytes(from, view.cols());
  for (std::int64_t b = 0; b < view.cols() / 32; ++b, block += from.block_bytes) {
    std::int8_t code[32];
    unpack_nibbles(block + 1, 16, 0, code);
    out.parts[1][b] = block[0];
    for (int i = 0; i < 16; ++i) out.parts[0][16 * b + i] = static_cast<std::byte>(code[2 * i] | code[2 * i + 1] << 4);
  }
}

bool is_mxfp4(const EncodingInfo& from, const EncodingInfo& to) {
  return from.name == "mxfp4" && to.name == "mxfp4-hf";
}

}  // namespace

Repacking repacking(const TensorView& view, const EncodingInfo& to) {
  const EncodingInfo& from = *view.encoding;
  if (repacks(from, to) || is_mxfp4(from, to)) return Repacking::kExact;
  if (from.family == Family::kAffine && to.family == Family::kBlock) return affine_to_block(view, to);
  if (from.family == Family::kBlock && to.family == Family::kAffine) return block_to_affine(from, to);
  return Repacking::kNo;
}

void repack_row(const TensorView& view, std::int64_t row, const EncodingInfo& to, const RowParts& out) {
  switch (view.encoding->family) {
    case Family::kAffine:
      return affine_row_to_blocks(view, row, to, out.parts[0]);
    case Family::kBlock:
      return is_mxfp4(*view.encoding, to) ? mxfp4_row_to_parts(view, row, out)
                                          : blocks_to_affine_row(view, row, to, out);
    default:
      return repack_row(view, row, out.parts[0]);
  }
}

}  // namespace nibble::encoding
