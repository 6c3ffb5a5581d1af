// MXFP4: X_blocks u8 (..., rows, blocks, 16), two codes a byte, and X_scales u8 (..., rows, blocks),
// exponents with a bias of 127. The logical tensor X is (..., rows, 32 blocks).
#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "container/hf/scaled_floats.h"
#include "container/hf/scheme.h"
#include "encoding/encoding.h"

namespace nibble::container::hf::mxfp4 {

namespace {

constexpr std::string_view kBlocks = "_blocks";
constexpr std::string_view kScales = "_scales";
constexpr std::int64_t kBlockBytes = 16;
constexpr std::int64_t kBlockColumns = 32;

void check_bytes(const TensorEntry& entry) {
  if (entry.view.encoding->name != "u8")
    fail(ErrorCode::kFormat, "tensor '{}' is in {}, not in u8", entry.name, entry.view.encoding->name);
}

// The shape of the logical tensor, once both parts agree on it.
Shape logical_shape(const TensorEntry& blocks, const TensorEntry& scales) {
  check_bytes(blocks);
  check_bytes(scales);
  const std::span<const std::int64_t> dims = blocks.view.shape.dims();
  if (dims.size() < 3 || dims.back() != kBlockBytes) {
    fail(ErrorCode::kFormat, "tensor '{}' has shape {} and not (..., rows, blocks, {})", blocks.name,
         blocks.view.shape.to_string(), kBlockBytes);
  }
  const Shape expected(dims.first(dims.size() - 1));
  if (scales.view.shape != expected) {
    fail(ErrorCode::kFormat, "tensor '{}' has shape {}, those of '{}' would be {}", scales.name,
         scales.view.shape.to_string(), blocks.name, expected.to_string());
  }
  std::vector<std::int64_t> logical(expected.dims().begin(), expected.dims().end());
  logical.back() = checked_mul(logical.back(), kBlockColumns);
  return Shape(logical);
}

std::string unread(const json::Value& /*quantization*/) { return ""; }

void join(const json::Value& /*quantization*/, CheckpointContents& contents) {
  std::vector<TensorEntry>& tensors = contents.tensors;
  TensorJoin joined(tensors);
  for (TensorEntry& entry : tensors) {
    const bool is_blocks = entry.name.ends_with(kBlocks);
    if (!is_blocks && !entry.name.ends_with(kScales)) continue;
    const std::string name = entry.name.substr(0, entry.name.size() - (is_blocks ? kBlocks : kScales).size());
    const std::string other = name + std::string(is_blocks ? kScales : kBlocks);
    const TensorEntry* partner = joined.find(other);
    if (partner == nullptr) fail(ErrorCode::kFormat, "tensor '{}' is there without '{}'", entry.name, other);
    if (!is_blocks) continue;
    if (joined.find(name) != nullptr) fail(ErrorCode::kFormat, "tensor '{}' is there beside '{}'", name, entry.name);
    TensorView view;
    view.encoding = &encoding::get("mxfp4-hf");
    view.shape = logical_shape(entry, *partner);
    view.add_part(PartRole::kCodes, Dtype::kU8, entry.view.shape, entry.view.data());
    view.add_part(PartRole::kScales, Dtype::kF8E8m0, partner->view.shape, partner->view.data());
    encoding::validate(view);
    entry.view = view;
    joined.absorb(*partner);
  }
  joined.finish();
  for (TensorEntry& entry : tensors) {
    if (entry.view.n_parts > 1) entry.name.resize(entry.name.size() - kBlocks.size());
  }
}

}  // namespace

std::span<const Scheme> entries() {
  static constexpr Scheme kSchemes[] = {{"mxfp4", unread, join}};
  return kSchemes;
}

}  // namespace nibble::container::hf::mxfp4
