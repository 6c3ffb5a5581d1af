#include "pipeline/error_sums.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/cpu.h"
#include "pipeline/error_lanes.h"

namespace nibble::pipeline {

namespace {

constexpr std::int64_t kBlock =
    2048;  // values summed in f32 before the sum moves to f64: 128 a lane, about 1e-6 relative

const ErrorLoops& loops() noexcept {
  static constexpr ErrorLoops kScalar = {lanes_sum_block, lanes_any_not_finite};
  static const ErrorLoops& chosen = machine_isa() >= Isa::kAvx2 ? error_loops_avx2() : kScalar;
  return chosen;
}

}  // namespace

double ErrorSums::relative_mse() const {
  if (e2 == 0) return 0;
  return w2 > 0 ? e2 / w2 : std::numeric_limits<double>::infinity();
}

double ErrorSums::snr_db() const {
  const double error = relative_mse();
  return error > 0 ? -10 * std::log10(error) : 0;
}

double ErrorSums::cosine() const {
  if (e2 == 0) return 1;
  const double norm = std::sqrt(w2) * std::sqrt(v2);
  return norm > 0 ? 0.5 * (w2 + v2 - e2) / norm : 0;  // 2 w v = w² + v² - (w - v)²
}

ErrorSums sum_errors(const float* w, const float* v, std::int64_t n) noexcept {
  ErrorSums sums;
  for (std::int64_t i = 0; i < n; i += kBlock) {
    const LaneSums block = loops().sum_block(w + i, v + i, std::min(kBlock, n - i));
    sums.add({block.w2, block.v2, block.e2});
  }
  return sums;
}

std::int64_t find_not_finite(const float* values, std::int64_t n) noexcept {
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t end = std::min(n, begin + kBlock);
    if (!loops().any_not_finite(values + begin, end - begin)) continue;
    return std::find_if(values + begin, values + end, [](float value) { return !std::isfinite(value); }) - values;
  }
  return n;
}

}  // namespace nibble::pipeline
