#include "method/gptq/hessian.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "linalg/gram.h"
#include "method/input.h"

namespace nibble::method::gptq {

Hessian make_hessian(const Job& job) {
  const std::int64_t n = job.shape.cols();
  require_gram(job, "gptq");
  const float* gram = job.statistics.gram.data();
  Hessian out;
  out.n = n;
  out.dead.resize(static_cast<std::size_t>(n));
  std::vector<double> diagonal(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    out.dead[at] = gram[i * n + i] == 0;
    diagonal[at] = out.dead[at] ? 1.0 : static_cast<double>(gram[i * n + i]);
  }
  std::vector<std::int32_t> places(static_cast<std::size_t>(n));
  std::iota(places.begin(), places.end(), 0);
  if (job.options.act_order) {
    std::ranges::stable_sort(places, std::greater(),
                             [&](std::int32_t c) { return diagonal[static_cast<std::size_t>(c)]; });
    out.order = places;
  }
  const double mean = std::accumulate(diagonal.begin(), diagonal.end(), 0.0) / static_cast<double>(n);
  out.factor.resize(static_cast<std::size_t>(n * n));
  constexpr double kLeast = 1e-6, kGrowth = 10;
  for (out.damping = job.options.damping; out.damping <= 1; out.damping = std::max(kLeast, out.damping) * kGrowth) {
    const auto added = static_cast<float>(out.damping * mean);
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t row = places[static_cast<std::size_t>(i)];
      float* to = out.factor.data() + i * n;
      for (std::int64_t j = 0; j < n; ++j) to[j] = gram[row * n + places[static_cast<std::size_t>(j)]];
      to[i] = static_cast<float>(diagonal[static_cast<std::size_t>(row)]) + added;
    }
    if (linalg::factor_of_inverse(n, out.factor.data())) return out;
  }
  fail(ErrorCode::kFormat, "tensor '{}': the products of its inputs make no positive definite matrix", job.tensor);
}

}  // namespace nibble::method::gptq
