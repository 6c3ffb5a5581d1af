#include "model/matrix.h"

#include <algorithm>
#include <numeric>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "encoding/encoding.h"
#include "kernel/f32_activations.h"
#include "linalg/gemm.h"

namespace nibble::model {

namespace {

constexpr std::int64_t kCheckedWeights = 1 << 18;  // by one thread at a time

class PackedMatrix final : public Matrix {
 public:
  // `memory` holds the packing from byte `offset` on; the other matrices of a stack lie in it, too.
  PackedMatrix(const kernel::LinearKernel& linear, const kernel::LinearKernel& wide, const kernel::MatrixInfo& info,
               const InputRounding& inputs, std::shared_ptr<AlignedBuffer> memory, std::uint64_t offset)
      : Matrix(info.rows, info.cols, inputs),
        linear_(linear),
        wide_(wide),
        info_(info),
        memory_(std::move(memory)),
        packed_(memory_->data() + offset) {}

  void pack(ExecContext& context, const TensorView& view, const std::int32_t* row_map) {
    const std::int64_t block = linear_.layout.row_block;
    const std::int64_t step = std::max<std::int64_t>(block, 64 / block * block);
    context.pool.parallel_dynamic((rows() + step - 1) / step, [&](std::int64_t i) {
      linear_.layout.pack(view, row_map, i * step, std::min(rows(), (i + 1) * step), packed_);
    });
  }

  const kernel::ActivationFormat* activation(std::int64_t batch) const override { return of(batch).activation; }
  const std::int32_t* column_order() const override {
    const auto order = linear_.layout.column_order;
    return order != nullptr ? order(info_, packed_) : nullptr;
  }
  std::int64_t grain() const override { return linear_.layout.row_block; }
  std::int64_t scratch_floats() const override { return 0; }
  void compute(const std::byte* activations, std::int64_t batch, std::int64_t n, std::int64_t row_begin,
               std::int64_t row_end, float* out, std::int64_t ldo, float* /*scratch*/) const override {
    of(batch).compute(info_, packed_, activations, n, row_begin, row_end, out, ldo);
  }
  void row(std::int64_t row, float* out) const override { linear_.layout.unpack_row(info_, packed_, row, out); }

 private:
  const kernel::LinearKernel& of(std::int64_t batch) const { return batch < wide_.min_tokens ? linear_ : wide_; }

  const kernel::LinearKernel& linear_;  // of few tokens
  const kernel::LinearKernel& wide_;    // of many, on the same layout
  kernel::MatrixInfo info_;
  std::shared_ptr<AlignedBuffer> memory_;
  std::byte* packed_;
};

class DecodedMatrix final : public Matrix {
 public:
  // Panels of up to four megabytes: every one reads all inputs again, so few high ones are faster than what a core's
  // cache would hold between decoding and the product (long rows: 120 against 65 GFLOPS). Their height depends on the
  // matrix alone: the library under gemm_nt may sum differently for different shapes.
  DecodedMatrix(const ModelSource& source, const SlotRows& rows, std::int64_t cols, const InputRounding& inputs)
      : Matrix(rows.end - rows.begin, cols, inputs),
        source_(source),
        slot_(rows.slot),
        first_(rows.begin),
        panel_(std::clamp<std::int64_t>((1 << 20) / cols / 16 * 16, 16, 256)),
        x_stride_(inputs.activation != nullptr
                      ? static_cast<std::int64_t>(kernel::kF32Activations.row_bytes(cols) / sizeof(float))
                      : cols) {}

  const kernel::ActivationFormat* activation(std::int64_t /*batch*/) const override {
    return inputs().activation != nullptr ? &kernel::kF32Activations : nullptr;
  }
  const std::int32_t* column_order() const override { return nullptr; }
  std::int64_t grain() const override { return panel_; }
  std::int64_t scratch_floats() const override { return panel_ * cols(); }
  void compute(const std::byte* activations, std::int64_t /*batch*/, std::int64_t n, std::int64_t row_begin,
               std::int64_t row_end, float* out, std::int64_t ldo, float* scratch) const override {
    const auto* x = reinterpret_cast<const float*>(activations);
    for (std::int64_t begin = row_begin; begin < row_end; begin += panel_) {
      const std::int64_t end = std::min(begin + panel_, row_end);
      source_.read_rows(slot_, first_ + begin, first_ + end, scratch);
      linalg::gemm_nt(n, end - begin, cols(), x, x_stride_, scratch, cols(), out + begin, ldo);
    }
  }
  void row(std::int64_t row, float* out) const override {
    source_.read_rows(slot_, first_ + row, first_ + row + 1, out);
  }

 private:
  const ModelSource& source_;
  std::size_t slot_;
  std::int64_t first_;
  std::int64_t panel_;
  std::int64_t x_stride_;  // of activations, in floats
};

void check_finite(ExecContext& context, const TensorView& view) {
  const std::int64_t rows = view.rows();
  const std::int64_t step = std::max<std::int64_t>(1, kCheckedWeights / std::max<std::int64_t>(1, view.cols()));
  context.pool.parallel_dynamic((rows + step - 1) / step, [&](std::int64_t i) {
    const std::int64_t end = std::min(rows, (i + 1) * step);
    const std::int64_t row = encoding::find_not_finite(view, i * step, end);
    if (row < end) fail(ErrorCode::kFormat, "row {} holds a weight or a scale that is NaN or infinite", row);
  });
}

// What a kernel packs the weight as: rows that are gathered number by number become plain ones.
const encoding::EncodingInfo& packed_from(const StoredRows& weight) {
  const encoding::EncodingInfo& own = *weight.view.encoding;
  const bool plain = own.family == encoding::Family::kPlain && weight.made == nullptr;
  return weight.whole_rows() || plain ? own : encoding::get("f32");
}

Tensor gathered(const StoredRows& weight, const SlotRows& rows) {
  const encoding::EncodingInfo& encoding = packed_from(weight);
  const std::int64_t n_rows = rows.end - rows.begin, cols = weight.cols();
  std::vector<float> values(static_cast<std::size_t>(n_rows * cols));
  weight.read(rows.begin, rows.end, values.data());
  Tensor tensor(encoding, {n_rows, cols});
  encoding.encode(values.data(), tensor.add_part(PartRole::kCodes, encoding.dtype, {n_rows, cols}).data(),
                  n_rows * cols);
  return tensor;
}

// Where the rows of a part of a weight lie; empty for the whole in canonical order.
std::vector<std::int32_t> part_map(const StoredRows& weight, const SlotRows& rows) {
  if (!weight.row_map.empty()) return {weight.row_map.begin() + rows.begin, weight.row_map.begin() + rows.end};
  std::vector<std::int32_t> map;
  if (rows.begin == 0) return map;
  map.resize(static_cast<std::size_t>(rows.end - rows.begin));
  std::iota(map.begin(), map.end(), static_cast<std::int32_t>(rows.begin));
  return map;
}

}  // namespace

std::vector<std::shared_ptr<const Matrix>> make_packed_matrices(ExecContext& context, const ModelSource& source,
                                                                const SlotRows& rows, int count, Isa isa,
                                                                std::uint64_t& packed_bytes) {
  const StoredRows& whole = source.weight(rows.slot);
  const encoding::EncodingInfo& encoding = packed_from(whole);
  const bool even_groups = whole.has_even_groups();
  const encoding::ActivationInfo* inputs = whole.view.inputs.activation;
  const kernel::LinearKernel& linear = kernel::choose_linear(encoding, whole.cols(), isa, even_groups, inputs);
  const kernel::LinearKernel& wide = kernel::choose_wide(encoding, whole.cols(), isa, even_groups, inputs);
  const std::int64_t height = (rows.end - rows.begin) / count;
  const kernel::MatrixInfo info = {&encoding, height, whole.cols()};
  constexpr std::uint64_t kAlignment = AlignedBuffer::kAlignment;
  const std::uint64_t bytes = (linear.layout.bytes(info) + kAlignment - 1) / kAlignment * kAlignment;
  packed_bytes = bytes * static_cast<std::uint64_t>(count);
  const auto memory = std::make_shared<AlignedBuffer>(packed_bytes);

  std::vector<std::shared_ptr<const Matrix>> out;
  for (const container::TensorEntry* entry : whole.entries()) source.reader().will_need(*entry);
  for (int i = 0; i < count; ++i) {
    SlotRows part = {rows.slot, rows.begin + i * height, rows.begin + (i + 1) * height};
    const StoredRows weight = whole.part_of(part.begin, part.end);
    auto matrix = std::make_shared<PackedMatrix>(linear, wide, info, weight.view.inputs, memory,
                                                 bytes * static_cast<std::uint64_t>(i));
    const std::vector<std::int32_t> map = part_map(weight, part);
    with_context(format_text("tensor '{}'", weight.entry->name), [&] {
      if (weight.whole_rows()) {
        matrix->pack(context, weight.view, map.empty() ? nullptr : map.data());
      } else {
        matrix->pack(context, gathered(weight, part).view(), nullptr);
      }
    });
    out.push_back(std::move(matrix));
  }
  for (const container::TensorEntry* entry : whole.entries()) source.reader().drop(*entry);
  return out;
}

std::unique_ptr<const Matrix> make_decoded_matrix(ExecContext& context, const ModelSource& source,
                                                  const SlotRows& rows) {
  SlotRows part = rows;
  const StoredRows weight = source.weight(rows.slot).part_of(part.begin, part.end);
  const container::TensorEntry& entry = *weight.entry;
  if (part.begin == 0) {
    source.reader().will_need(entry);
    with_context(format_text("tensor '{}'", entry.name), [&] { check_finite(context, entry.view); });
    source.reader().drop(entry);
  }
  return std::make_unique<DecodedMatrix>(source, rows, weight.cols(), weight.view.inputs);
}

}  // namespace nibble::model
