#include "eval/statistics.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"

namespace nibble::eval {

namespace {

// Draw i of resample r out of n: the high 32 bits scaled to [0, n), unbiased enough for any number of chunks.
std::size_t draw(std::uint64_t seed, std::uint64_t r, std::uint64_t i, std::uint64_t n) {
  return static_cast<std::size_t>((random_bits(seed, r, i) >> 32) * n >> 32);
}

}  // namespace

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
      const std::size_t pick = draw(seed, r, i, n);
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

Interval bootstrap_mean(std::span<const double> differences, int resamples, std::uint64_t seed) {
  const std::uint64_t n = differences.size();
  std::vector<double> means(static_cast<std::size_t>(resamples));
  for (std::size_t r = 0; r < means.size(); ++r) {
    for (std::uint64_t i = 0; i < n; ++i) means[r] += differences[draw(seed, r, i, n)];
    means[r] /= static_cast<double>(n);
  }
  std::sort(means.begin(), means.end());
  if (means.empty()) return {};
  return {quantile(means, 0.025), quantile(means, 0.975)};
}

Interval wilson_interval(std::int64_t successes, std::int64_t n) {
  constexpr double kZ = 1.959963984540054;  // of 95 %
  const auto size = static_cast<double>(n);
  const double share = static_cast<double>(successes) / size;
  const double scale = 1 + kZ * kZ / size;
  const double middle = (share + kZ * kZ / (2 * size)) / scale;
  const double half = kZ / scale * std::sqrt(share * (1 - share) / size + kZ * kZ / (4 * size * size));
  return {successes == 0 ? 0 : middle - half, successes == n ? 1 : middle + half};
}

double mcnemar_exact(std::int64_t a, std::int64_t b) {
  const auto n = static_cast<double>(a + b);
  double tail = 0;
  for (std::int64_t k = 0; k <= std::min(a, b); ++k) {
    const auto x = static_cast<double>(k);
    tail += std::exp(std::lgamma(n + 1) - std::lgamma(x + 1) - std::lgamma(n - x + 1) - n * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

}  // namespace nibble::eval
