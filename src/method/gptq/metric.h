// The quadratic measures in which one block of columns is solved.
#pragma once

#include <cstdint>
#include <vector>

#include "method/gptq/hessian.h"
#include "method/gptq/local.h"

namespace nibble::method::gptq {

// An error e of the block costs e m eᵀ.
struct Metric {
  std::int64_t n = 0;
  std::vector<float> m;           // (n, n)
  std::vector<float> factor;      // (n, n): upper, Uᵀ U the inverse of m, damped
  std::vector<float> sub_factor;  // (n / sub, sub, sub): the same of each sub-block of m

  LocalMetric local() const { return {m.data(), sub_factor.data()}; }
};

// While all later columns can still take over the block's error as they like: the Schur complement.
Metric conditional_metric(const Hessian& hessian, std::int64_t begin, std::int64_t n, std::int64_t sub);
// While all other columns stay: the block of the gram itself. damping: of the mean of its diagonal.
Metric fixed_metric(std::span<const float> gram, std::int64_t cols, std::int64_t begin, std::int64_t n,
                    std::int64_t sub, double damping);

}  // namespace nibble::method::gptq
