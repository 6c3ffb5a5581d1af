#include "eval/statistics.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"

namespace nibble::eval {

MeanError mean_with_error(std::span<const double> values) {
  MeanError result;
  if (values.empty()) return result;
  const auto n = static_cast<double>(values.size());
  double sum = 0;
  for (const double value : values) sum += value;
  result.mean = sum / n;
  if (values.size() < 2) return result;
  double squares = 0;
  for (const double value : values) squares += (value - result.mean) * (value - result.mean);
  result.error = std::sqrt(squares / (n - 1) / n);
  return result;
}

double quantile(std::span<const double> sorted, double q) {
  const double position = std::clamp(q, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  const double rest = position - static_cast<double>(below);
  return sorted[below] + rest * (sorted[above] - sorted[below]);
}

double correlation(std::span<const double> a, std::span<const double> b) {
  const double mean_a = mean_with_error(a).mean;
  const double mean_b = mean_with_error(b).mean;
  double aa = 0, bb = 0, ab = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    aa += (a[i] - mean_a) * (a[i] - mean_a);
    bb += (b[i] - mean_b) * (b[i] - mean_b);
    ab += (a[i] - mean_a) * (b[i] - mean_b);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

RatioInterval bootstrap_ratio(std::span<const double> a, std::span<const double> b, int resamples, std::uint64_t seed) {
  RatioInterval result;
  result.resamples = resamples;
  const std::uint64_t n = a.size();
  double sum_a = 0, sum_b = 0;
  for (std::size_t i = 0; i < n; ++i) {
    sum_a += a[i];
    sum_b += b[i];
  }
  result.ratio = sum_a / sum_b;
  std::vector<double> ratios(static_cast<std::size_t>(resamples));
  for (std::size_t r = 0; r < ratios.size(); ++r) {
    double drawn_a = 0, drawn_b = 0;
    for (std::uint64_t i = 0; i < n; ++i) {
      // The high 32 bits scaled to [0, n): unbiased enough for any number of chunks.
      const std::size_t pick = static_cast<std::size_t>((random_bits(seed, r, i) >> 32) * n >> 32);
      drawn_a += a[pick];
      drawn_b += b[pick];
    }
    ratios[r] = drawn_a / drawn_b;
  }
  std::sort(ratios.begin(), ratios.end());
  if (!ratios.empty()) {
    result.low = quantile(ratios, 0.025);
    result.high = quantile(ratios, 0.975);
  }
  return result;
}

}  // namespace nibble::eval
