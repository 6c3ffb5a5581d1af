#include "method/layer.h"

#include "linalg/gemm.h"

namespace nibble::method {

std::vector<float> gradient_of(std::int64_t n, std::int64_t cols, std::span<const float> values,
                               std::span<const float> target, std::span<const float> gram) {
  std::vector<float> change(values.size()), out(values.size());
  for (std::size_t i = 0; i < change.size(); ++i) change[i] = values[i] - target[i];
  linalg::gemm(n, cols, cols, change.data(), cols, gram.data(), cols, out.data(), cols);
  return out;
}

std::vector<double> row_products(std::int64_t n, std::span<const float> values, std::span<const float> target,
                                 std::span<const float> product) {
  std::vector<double> sums(static_cast<std::size_t>(n));
  const std::size_t cols = n > 0 ? values.size() / sums.size() : 1;
  for (std::size_t i = 0; i < values.size(); ++i)
    sums[i / cols] += static_cast<double>(values[i] - target[i]) * static_cast<double>(product[i]);
  return sums;
}

std::vector<double> row_errors(std::int64_t n, std::int64_t cols, std::span<const float> values,
                               std::span<const float> target, std::span<const float> gram) {
  return row_products(n, values, target, gradient_of(n, cols, values, target, gram));
}

}  // namespace nibble::method
