#include "method/quantize_tensor.h"

#include <algorithm>
#include <vector>

namespace nibble::method {

namespace {

constexpr std::int64_t kRowsPerTask = 64;

class Values final : public RowSource {
 public:
  Values(std::span<const float> values, const Shape& shape) : values_(values), shape_(shape) {}
  std::int64_t rows() const override { return shape_.rows(); }
  std::int64_t cols() const override { return shape_.cols(); }
  void read(std::int64_t row_begin, std::int64_t row_end, float* out) const override {
    std::copy_n(values_.data() + row_begin * cols(), (row_end - row_begin) * cols(), out);
  }

 private:
  std::span<const float> values_;
  Shape shape_;
};

// Where row `row` of each part begins; a part without rows (a scale of the whole tensor) has one place for all.
RowsOut rows_at(Tensor& tensor, std::int64_t row) {
  const TensorView& view = tensor.view();
  RowsOut out;
  for (int i = 0; i < view.n_parts; ++i) {
    const Part& part = view.parts[static_cast<std::size_t>(i)];
    const bool by_rows = view.n_parts == 1 || part.shape[0] == view.rows();
    const std::size_t stride = by_rows ? part.bytes.size() / static_cast<std::size_t>(view.rows()) : 0;
    out.parts[static_cast<std::size_t>(i)] =
        tensor.mutable_part(part.role).data() + stride * static_cast<std::size_t>(row);
  }
  return out;
}

}  // namespace

void quantize_into(ExecContext& context, const Method& method, const Job& job, const RowSource& weights,
                   std::int64_t first_row, Tensor& out) {
  const std::int64_t rows = weights.rows(), cols = weights.cols();
  const auto quantizer = method.make(job);
  quantizer->prepare(context, weights);
  context.pool.parallel_dynamic((rows + kRowsPerTask - 1) / kRowsPerTask, [&](std::int64_t task) {
    context.check_cancelled();
    const std::int64_t begin = task * kRowsPerTask, n = std::min(kRowsPerTask, rows - begin);
    std::vector<float> values(static_cast<std::size_t>(n * cols));
    weights.read(begin, begin + n, values.data());
    quantizer->quantize_rows(values.data(), begin, n, rows_at(out, first_row + begin));
  });
}

Tensor quantize(ExecContext& context, const Method& method, const Job& job, std::span<const float> values) {
  Tensor out = encoding::allocate(*job.target, job.shape);
  quantize_into(context, method, job, Values(values, job.shape), 0, out);
  return out;
}

}  // namespace nibble::method
