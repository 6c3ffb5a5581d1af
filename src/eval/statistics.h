// Means with their errors, quantiles, shares with their intervals, and the paired bootstrap.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace nibble::eval {

struct MeanError {
  double mean = 0;
  double error = 0;  // standard error of the mean: sample deviation / sqrt(n)
};
// Of values given in a fixed order; n < 2 gives error 0.
MeanError mean_with_error(std::span<const double> values);

// Quantile q in [0, 1] of ascending values, linear between order statistics (R type 7, numpy's default). values not
// empty.
double quantile(std::span<const double> sorted, double q);

// Pearson correlation; 0 when either side is constant.
double correlation(std::span<const double> a, std::span<const double> b);

struct RatioInterval {
  double ratio = 0;          // sum(a) / sum(b)
  double low = 0, high = 0;  // central 95 % of the resampled ratios
  int resamples = 0;
};
// Paired bootstrap of sum(a) / sum(b): the pairs (a[i], b[i]) are drawn with replacement, a.size() of them, `resamples`
// times. A pure function of its arguments. a and b of one length, not empty; a zero sum below gives infinities.
RatioInterval bootstrap_ratio(std::span<const double> a, std::span<const double> b, int resamples, std::uint64_t seed);

struct Interval {
  double low = 0, high = 0;  // central 95 %
};
// The same draws for the mean of `differences`, not empty.
Interval bootstrap_mean(std::span<const double> differences, int resamples, std::uint64_t seed);

// Of a share of which `successes` of n > 0 were seen (Wilson 1927): inside [0, 1] and not empty for 0 and n of n.
Interval wilson_interval(std::int64_t successes, std::int64_t n);

// McNemar's exact test: the probability, two-sided, that of a + b pairs that changed, each either way with 1/2, as few
// as min(a, b) went one way.
double mcnemar_exact(std::int64_t a, std::int64_t b);

}  // namespace nibble::eval
