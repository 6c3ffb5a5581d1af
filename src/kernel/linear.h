// Matrix products of encoded weights with activations: the registry that the model chooses from when it is loaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/cpu.h"
#include "encoding/encoding.h"

namespace nibble::kernel {

// How activations are handed to a kernel. Two kernels with the same format (same pointer) share one quantized copy.
struct ActivationFormat {
  std::string_view name;                                   // "f32", "q8-b32/avx512", ...
  std::uint64_t (*row_bytes)(std::int64_t cols) noexcept;  // a multiple of 64
  // x: (n, cols) with row stride ldx floats; out: n rows of row_bytes(cols), 64-byte aligned. Rows are independent, so
  // threads may share the work by rows. `inputs`: how the weights want them rounded, without a type: as the format
  // does.
  void (*quantize)(const InputRounding& inputs, const float* x, std::int64_t ldx, std::int64_t n, std::int64_t cols,
                   std::byte* out) noexcept;
  bool (*rounds)(const encoding::ActivationInfo& inputs) noexcept = nullptr;  // such a type; null: none
  bool needs_type = false;                                                    // it takes no inputs without one
};

// Which matrix a packed buffer holds. (rows = outputs, cols = inputs)
struct MatrixInfo {
  const encoding::EncodingInfo* encoding = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

// Weights as a kernel wants them in memory (row-interleaved, unpacked, ...): made once at load, owned by the model, in
// a buffer aligned to 64 bytes. The paths of one family for different instruction sets share one layout.
struct WeightLayout {
  // Rows are packed in groups of `row_block`; a last partial group is padded.
  int row_block = 1;
  std::uint64_t (*bytes)(const MatrixInfo& matrix) = nullptr;
  // Packs rows [row_begin, row_end) (multiples of row_block, or the end) into `packed`, the start of the whole matrix.
  // `row_map`, when not null, gives the source row of each packed row. Thread-safe on disjoint ranges.
  // Throws Error{kFormat} naming the row of a scale or weight that is NaN or infinite.
  void (*pack)(const TensorView& weights, const std::int32_t* row_map, std::int64_t row_begin, std::int64_t row_end,
               std::byte* packed) = nullptr;
  // One row back as f32: the exact values of the source (embedding lookups, checks).
  void (*unpack_row)(const MatrixInfo& matrix, const std::byte* packed, std::int64_t row,
                     float* out) noexcept = nullptr;
  // Of a layout that sorts columns (null: it does not): the order of those of a matrix, (cols), in `packed`; null where
  // they lie as they come. Activations are brought into it before they are quantized: number i is that of column
  // order[i].
  const std::int32_t* (*column_order)(const MatrixInfo& matrix, const std::byte* packed) noexcept = nullptr;
};

struct LinearKernel {
  std::string_view name;  // "blocks/avx512": family and instruction set
  Isa isa{};
  bool (*accepts)(const encoding::EncodingInfo& weights, std::int64_t cols) = nullptr;
  const ActivationFormat* activation = nullptr;
  WeightLayout layout;
  // out[t * ldo + r] = sum_c w[r][c] * x[t][c] for r in [row_begin, row_end), t in [0, n). row_begin is a multiple of
  // layout.row_block, and so is row_end unless it is the last row. Called from several threads on disjoint row ranges;
  // a value does not depend on how rows were shared out nor on n. Any n >= 1.
  void (*compute)(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
                  std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept = nullptr;
  // Below so many tokens another kernel with the same layout is faster.
  std::int64_t min_tokens = 1;
  // Multiply-adds that are executed for one of the product.
  int products = 1;
};

// In order of preference: the first that accepts is the best one.
std::span<const LinearKernel* const> all_entries();
// The best kernel for one token and these weights whose isa is at most `isa`; there is always one for every encoding
// that decodes (the generic scalar kernel). Throws Error{kUnsupported} otherwise. `even_groups`: what
// encoding::has_even_groups says of the weights; layouts that sort columns take no others. `inputs`: how the weights
// want their inputs rounded, null: as it is fastest.
const LinearKernel& choose_linear(const encoding::EncodingInfo& weights, std::int64_t cols, Isa isa,
                                  bool even_groups = true, const encoding::ActivationInfo* inputs = nullptr);
// The one that takes over from it on the same layout at `min_tokens` tokens; itself where there is none.
const LinearKernel& choose_wide(const encoding::EncodingInfo& weights, std::int64_t cols, Isa isa,
                                bool even_groups = true, const encoding::ActivationInfo* inputs = nullptr);

}  // namespace nibble::kernel
