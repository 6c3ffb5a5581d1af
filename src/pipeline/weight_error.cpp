#include "pipeline/weight_error.h"

#include <algorithm>

#include "encoding/encoding.h"
#include "method/quantize_tensor.h"

namespace nibble::pipeline {

namespace {

constexpr std::int64_t kWeights = std::int64_t{1} << 22;  // that a tensor is judged by, at most

double weighted_square(std::span<const float> a, std::span<const float> b, std::span<const float> importance,
                       std::int64_t cols) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - (b.empty() ? 0.0 : static_cast<double>(b[i]));
    sum += d * d * (importance.empty() ? 1.0 : static_cast<double>(importance[i % static_cast<std::size_t>(cols)]));
  }
  return sum;
}

}  // namespace

void weight_errors(ExecContext& context, const SourceTensor& source, const method::Options& options,
                   OpenTensor& tensor) {
  const Shape& shape = source.tensor.shape;
  const std::int64_t cols = shape.cols(), rows = shape.rows();
  const std::int64_t count = std::clamp<std::int64_t>(kWeights / std::max<std::int64_t>(1, cols), 1, rows);
  const std::int64_t step = rows / count;
  // A stack has an importance of each matrix: the first one's stands for all.
  const std::span<const float> all = tensor.importance;
  const auto importance = all.first(std::min(all.size(), static_cast<std::size_t>(cols)));
  std::vector<float> weights(static_cast<std::size_t>(count * cols));
  for (std::int64_t i = 0; i < count; ++i) source.read(i * step, i * step + 1, weights.data() + i * cols);
  const double whole = weighted_square(weights, {}, importance, cols);
  for (TypeCandidate& candidate : tensor.candidates) {
    context.check_cancelled();
    if (candidate.method == nullptr || whole <= 0) continue;
    method::Job job;
    job.tensor = source.tensor.name;
    job.target = candidate.type;
    job.shape = {count, cols};
    job.statistics.importance = importance;
    job.options = options;
    const Tensor packed = method::quantize(context, *candidate.method, job, weights);
    std::vector<float> decoded(weights.size());
    encoding::decode_rows(packed.view(), 0, count, decoded.data());
    candidate.error = weighted_square(weights, decoded, importance, cols) / whole;
  }
}

}  // namespace nibble::pipeline
