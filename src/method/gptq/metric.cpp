#include "method/gptq/metric.h"

#include <algorithm>

#include "linalg/gram.h"

namespace nibble::method::gptq {

namespace {

// To out (n, n), from a (n, n) with the given stride. A matrix that no damping helps gives the identity.
void damped_factor(const float* a, std::int64_t stride, std::int64_t n, double damping, float* out) {
  double mean = 0;
  for (std::int64_t i = 0; i < n; ++i) mean += static_cast<double>(a[i * stride + i]) / static_cast<double>(n);
  constexpr double kLeast = 1e-6, kGrowth = 10, kMost = 100;
  for (; mean > 0 && damping <= kMost; damping = std::max(kLeast, damping) * kGrowth) {
    for (std::int64_t i = 0; i < n; ++i) {
      std::copy_n(a + i * stride, n, out + i * n);
      out[i * n + i] += static_cast<float>(damping * mean);
    }
    if (linalg::factor_of_inverse(n, out)) return;
  }
  std::fill_n(out, n * n, 0.0f);
  for (std::int64_t i = 0; i < n; ++i) out[i * n + i] = 1;
}

void add_sub_factors(Metric& metric, std::int64_t sub, double damping) {
  metric.sub_factor.resize(static_cast<std::size_t>(metric.n * sub));
  for (std::int64_t at = 0; at < metric.n; at += sub)
    damped_factor(metric.m.data() + at * metric.n + at, metric.n, sub, damping, metric.sub_factor.data() + at * sub);
}

}  // namespace

// H = R Rᵀ with R = U⁻¹: the complement is the block of R times its transpose.
Metric conditional_metric(const Hessian& hessian, std::int64_t begin, std::int64_t n, std::int64_t sub) {
  Metric metric;
  metric.n = n;
  metric.factor.resize(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < n; ++i)
    std::copy_n(hessian.factor.data() + (begin + i) * hessian.n + begin, n, metric.factor.data() + i * n);
  std::vector<double> r(static_cast<std::size_t>(n * n));
  const float* u = metric.factor.data();
  for (std::int64_t i = n - 1; i >= 0; --i) {
    double* row = r.data() + i * n;
    row[i] = 1;
    for (std::int64_t k = i + 1; k < n; ++k) {
      const double weight = static_cast<double>(u[i * n + k]);
      for (std::int64_t j = k; j < n; ++j) row[j] -= weight * r[static_cast<std::size_t>(k * n + j)];
    }
    for (std::int64_t j = i; j < n; ++j) row[j] /= static_cast<double>(u[i * n + i]);
  }
  metric.m.resize(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = i; j < n; ++j) {
      double sum = 0;
      for (std::int64_t k = j; k < n; ++k)
        sum += r[static_cast<std::size_t>(i * n + k)] * r[static_cast<std::size_t>(j * n + k)];
      metric.m[static_cast<std::size_t>(i * n + j)] = metric.m[static_cast<std::size_t>(j * n + i)] =
          static_cast<float>(sum);
    }
  }
  add_sub_factors(metric, sub, 0);
  return metric;
}

Metric fixed_metric(std::span<const float> gram, std::int64_t cols, std::int64_t begin, std::int64_t n,
                    std::int64_t sub, double damping) {
  Metric metric;
  metric.n = n;
  metric.m.resize(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < n; ++i)
    std::copy_n(gram.data() + (begin + i) * cols + begin, n, metric.m.data() + i * n);
  metric.factor.resize(metric.m.size());
  damped_factor(metric.m.data(), n, n, damping, metric.factor.data());
  add_sub_factors(metric, sub, damping);
  return metric;
}

}  // namespace nibble::method::gptq
