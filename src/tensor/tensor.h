// A logical tensor in some encoding: its shape and up to eight typed parts. A view borrows, a Tensor owns.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/aligned_buffer.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace nibble {

namespace encoding {
struct EncodingInfo;    // encoding/encoding.h; interned, so the pointer is the identity
struct ActivationInfo;  // encoding/activation.h, likewise
}  // namespace encoding

enum class PartRole : std::uint8_t {
  kCodes,  // packed codes; the only part of plain and block encodings
  kScales,
  kZeros,
  kGroupIndex,  // g_idx: group of each input column
  kCodebook,
  kOutliers,        // columns of weights that are kept in 16 bits
  kOutlierColumns,  // which those are
  kSuperScales,     // second-level scales (double quantization)
  kGlobalScale,
};

struct Part {
  PartRole role{};
  Dtype dtype{};
  Shape shape;
  std::span<const std::byte> bytes;
};

// Columns of a matrix, ascending: i32 anywhere in memory, not owned.
struct ColumnList {
  std::span<const std::byte> bytes{};

  bool empty() const { return bytes.empty(); }
  std::int64_t size() const { return static_cast<std::int64_t>(bytes.size() / sizeof(std::int32_t)); }
  std::int32_t operator[](std::int64_t i) const {
    std::int32_t column;
    std::memcpy(&column, bytes.data() + static_cast<std::size_t>(i) * sizeof(column), sizeof(column));
    return column;
  }
  bool operator==(const ColumnList& other) const { return std::ranges::equal(bytes, other.bytes); }
};

// How the inputs of a linear are rounded before its weight multiplies them; without a type: not at all. Scale and zero
// point of those that are static; which columns are left as they are, whatever they hold.
struct InputRounding {
  const encoding::ActivationInfo* activation = nullptr;
  float scale = 0;
  int zero = 0;
  ColumnList kept{};

  bool operator==(const InputRounding&) const = default;
};

struct TensorView {
  static constexpr std::size_t kMaxParts = 8;

  const encoding::EncodingInfo* encoding = nullptr;
  Shape shape;  // logical: (rows = outputs, cols = inputs); experts stacked in front
  std::array<Part, kMaxParts> parts{};
  int n_parts = 0;
  InputRounding inputs;

  std::int64_t rows() const { return shape.rows(); }
  std::int64_t cols() const { return shape.cols(); }
  void add_part(PartRole role, Dtype dtype, const Shape& part_shape, std::span<const std::byte> bytes);
  const Part* find(PartRole role) const;
  const Part& part(PartRole role) const;  // throws Error{kFormat} when absent
  // The codes: all bytes of a plain or block encoding.
  std::span<const std::byte> data() const { return parts[0].bytes; }
  std::uint64_t n_bytes() const;  // of all parts
};

// A plain or block tensor over `bytes`.
TensorView make_view(const encoding::EncodingInfo& encoding, const Shape& shape, std::span<const std::byte> bytes);

// Owns the parts of one tensor; move-only.
class Tensor {
 public:
  Tensor() = default;
  Tensor(const encoding::EncodingInfo& encoding, const Shape& shape) {
    view_.encoding = &encoding;
    view_.shape = shape;
  }

  // Adds a part of dtype_bytes(dtype) * part_shape.elements() bytes, not initialised, and returns it for writing.
  std::span<std::byte> add_part(PartRole role, Dtype dtype, const Shape& part_shape);
  std::span<std::byte> mutable_part(PartRole role);
  void set_inputs(const InputRounding& inputs) { view_.inputs = inputs; }
  const TensorView& view() const { return view_; }

 private:
  TensorView view_;
  std::array<AlignedBuffer, TensorView::kMaxParts> buffers_;
};

}  // namespace nibble
