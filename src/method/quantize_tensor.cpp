#include "method/quantize_tensor.h"

#include <algorithm>
#include <vector>

#include "encoding/affine.h"
#include "method/layer.h"

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

}  // namespace

void quantize_into(ExecContext& context, const Method& method, const Job& job, const RowSource& weights,
                   std::int64_t first_row, Tensor& out) {
  const std::int64_t rows = weights.rows(), cols = weights.cols();
  const auto quantizer = method.make(job);
  quantizer->prepare(context, weights);
  const std::int64_t step = encoding::row_step(*job.target, job.shape);
  const std::int64_t per_task = (kRowsPerTask + step - 1) / step * step;
  context.pool.parallel_dynamic((rows + per_task - 1) / per_task, [&](std::int64_t task) {
    context.check_cancelled();
    const std::int64_t begin = task * per_task, n = std::min(per_task, rows - begin);
    std::vector<float> values(static_cast<std::size_t>(n * cols));
    weights.read(begin, begin + n, values.data());
    quantizer->quantize_rows(values.data(), begin, n, encoding::rows_at(out, first_row + begin));
  });
}

Tensor quantize(ExecContext& context, const Method& method, const Job& whole, std::span<const float> values) {
  Job job = whole;
  job.target = &encoding::without_kept(*job.target);
  Tensor out = encoding::allocate(*job.target, job.shape);
  quantize_into(context, method, job, Values(values, job.shape), 0, out);
  return out;
}

double layer_error(ExecContext& context, const Method& method, const Job& job, std::span<const float> weights,
                   std::span<const float> judge) {
  const Tensor tensor = quantize(context, method, job, weights);
  const std::int64_t rows = job.shape.rows();
  std::vector<float> decoded(weights.size());
  encoding::decode_rows(tensor.view(), 0, rows, decoded.data());
  double sum = 0;
  for (const double each : row_errors(rows, job.shape.cols(), decoded, weights, judge)) sum += each;
  return sum;
}

}  // namespace nibble::method
