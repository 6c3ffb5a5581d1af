#include "tensor/shape.h"

#include "base/checked.h"

namespace nibble {

Shape::Shape(std::span<const std::int64_t> dims) {
  if (dims.size() > kMaxRank)
    fail(ErrorCode::kFormat, "a tensor of {} dimensions; at most {} are known", dims.size(), kMaxRank);
  std::int64_t product = 1;
  for (std::int64_t dim : dims) {
    if (dim < 0) fail(ErrorCode::kFormat, "negative dimension {}", dim);
    product = checked_mul(product, dim);
    dims_[static_cast<std::size_t>(rank_++)] = dim;
  }
  if (product > std::int64_t{1} << 62) fail(ErrorCode::kFormat, "{} elements are too many", product);
}

std::int64_t Shape::elements() const {
  std::int64_t product = 1;
  for (std::int64_t dim : dims()) product *= dim;
  return product;
}

std::int64_t Shape::rows() const {
  std::int64_t product = 1;
  for (int i = 0; i + 1 < rank_; ++i) product *= (*this)[i];
  return product;
}

std::string Shape::to_string() const {
  std::string text = "(";
  for (int i = 0; i < rank_; ++i) text += (i ? ", " : "") + std::to_string((*this)[i]);
  return text + ")";
}

}  // namespace nibble
