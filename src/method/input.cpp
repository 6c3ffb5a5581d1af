#include "method/input.h"

#include <cmath>

namespace nibble::method {

namespace {

constexpr double kLeastShare = 1e-4;  // of the mean

bool all_within(const float* weights, std::int64_t n, float limit) {
  int outside = 0;  // NaN compares false
  for (std::int64_t i = 0; i < n; ++i) outside |= !(std::fabs(weights[i]) <= limit);
  return outside == 0;
}

}  // namespace

void require_representable(const Job& job, const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                           float limit) {
  const std::int64_t cols = job.shape.cols();
  const std::int64_t n = n_rows * cols;
  if (all_within(weights, n, limit)) return;
  for (std::int64_t i = 0; i < n; ++i) {
    const float value = weights[i];
    if (std::fabs(value) <= limit) continue;
    const std::int64_t row = row_begin + i / cols, col = i % cols;
    if (!std::isfinite(value)) {
      fail(ErrorCode::kFormat, "tensor '{}', row {}, column {}: the weight is {}", job.tensor, row, col,
           std::isnan(value) ? "NaN"
           : value > 0       ? "infinity"
                             : "-infinity");
    }
    fail(ErrorCode::kFormat, "tensor '{}', row {}, column {}: {} cannot be held in {}", job.tensor, row, col, value,
         job.target->name);
  }
}

std::vector<float> prepare_importance(const Job& job) {
  const std::span<const float> given = job.statistics.importance;
  if (given.empty()) return {};
  const std::int64_t cols = job.shape.cols();
  const auto n = static_cast<std::int64_t>(given.size());
  if (cols == 0 || n % cols != 0 || job.shape.rows() % (n / cols) != 0) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}': {} importance values do not go with shape {}", job.tensor, n,
         job.shape.to_string());
  }
  std::vector<float> out(given.size());
  for (std::int64_t expert = 0; expert < n / cols; ++expert) {
    const float* src = given.data() + expert * cols;
    float* dst = out.data() + expert * cols;
    double sum = 0;
    for (std::int64_t c = 0; c < cols; ++c) {
      if (!(src[c] >= 0 && std::isfinite(src[c]))) {
        fail(ErrorCode::kInvalidArgument, "tensor '{}', column {}: the importance is {}", job.tensor, c, src[c]);
      }
      sum += static_cast<double>(src[c]);
    }
    const double mean = sum / static_cast<double>(cols);
    for (std::int64_t c = 0; c < cols; ++c) {
      const double share = mean > 0 ? static_cast<double>(src[c]) / mean : 1.0;
      dst[c] = static_cast<float>(std::max(share, kLeastShare));
    }
  }
  return out;
}

void require_gram(const Job& job, std::string_view method) {
  const std::int64_t n = job.shape.cols();
  const std::span<const float> gram = job.statistics.gram;
  if (gram.empty()) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}': {} needs what calibration knows of its inputs", job.tensor, method);
  }
  if (static_cast<std::int64_t>(gram.size()) != n * n) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}': {} products of inputs do not go with {} columns", job.tensor,
         gram.size(), n);
  }
  for (std::int64_t i = 0; i < n * n; ++i) {
    const float value = gram[static_cast<std::size_t>(i)];
    const bool diagonal = i / n == i % n;
    if (std::isfinite(value) && !(diagonal && value < 0)) continue;
    fail(ErrorCode::kInvalidArgument, "tensor '{}': the product of inputs {} and {} is {}", job.tensor, i / n, i % n,
         value);
  }
}

}  // namespace nibble::method
