#include "tensor/tensor.h"

#include "base/checked.h"

namespace nibble {

void TensorView::add_part(PartRole role, Dtype dtype, const Shape& part_shape, std::span<const std::byte> bytes) {
  if (static_cast<std::size_t>(n_parts) == kMaxParts)
    fail(ErrorCode::kInternal, "a tensor has at most {} parts", kMaxParts);
  parts[static_cast<std::size_t>(n_parts++)] = {role, dtype, part_shape, bytes};
}

const Part* TensorView::find(PartRole role) const {
  for (int i = 0; i < n_parts; ++i) {
    const Part& part = parts[static_cast<std::size_t>(i)];
    if (part.role == role) return &part;
  }
  return nullptr;
}

const Part& TensorView::part(PartRole role) const {
  if (const Part* found = find(role)) return *found;
  fail(ErrorCode::kFormat, "the tensor lacks its part {}", static_cast<int>(role));
}

std::uint64_t TensorView::n_bytes() const {
  std::uint64_t sum = 0;
  for (int i = 0; i < n_parts; ++i) sum += parts[static_cast<std::size_t>(i)].bytes.size();
  return sum;
}

TensorView make_view(const encoding::EncodingInfo& encoding, const Shape& shape, std::span<const std::byte> bytes) {
  TensorView view;
  view.encoding = &encoding;
  view.shape = shape;
  view.add_part(PartRole::kCodes, Dtype::kU8, {static_cast<std::int64_t>(bytes.size())}, bytes);
  return view;
}

std::span<std::byte> Tensor::add_part(PartRole role, Dtype dtype, const Shape& part_shape) {
  const auto n_bytes = checked_mul(static_cast<std::size_t>(part_shape.elements()), dtype_bytes(dtype));
  AlignedBuffer& buffer = buffers_[static_cast<std::size_t>(view_.n_parts)];
  view_.add_part(role, dtype, part_shape, {});
  buffer = AlignedBuffer(n_bytes);
  view_.parts[static_cast<std::size_t>(view_.n_parts - 1)].bytes = buffer.bytes();
  return buffer.bytes();
}

std::span<std::byte> Tensor::mutable_part(PartRole role) {
  for (int i = 0; i < view_.n_parts; ++i) {
    if (view_.parts[static_cast<std::size_t>(i)].role == role) return buffers_[static_cast<std::size_t>(i)].bytes();
  }
  fail(ErrorCode::kInternal, "the tensor lacks its part {}", static_cast<int>(role));
}

}  // namespace nibble
