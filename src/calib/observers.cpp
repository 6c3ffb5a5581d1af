#include "calib/observers.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/error.h"

namespace nibble::calib {

namespace {

using encoding::ActivationInfo;
using Range = Observer::Range;

constexpr double kPercentile = 0.9999;
constexpr int kBins = 2048;   // of a histogram
constexpr int kShares = 100;  // of the whole range that are tried, in hundredths
constexpr int kLeastShare = 5;

Range whole(std::span<const float> inputs) {
  const auto [least, largest] = std::ranges::minmax_element(inputs);
  return {std::min(0.0f, *least), std::max(0.0f, *largest)};
}

Range min_max(const ActivationInfo& /*info*/, std::span<const float> inputs) { return whole(inputs); }

Range scaled(Range range, double share) {
  return {static_cast<float>(range.least * share), static_cast<float>(range.largest * share)};
}

float magnitude(Range range) { return std::max(-range.least, range.largest); }

// All but one in ten thousand of the magnitudes (of symmetric codes) or of each side.
Range percentile(const ActivationInfo& info, std::span<const float> inputs) {
  std::vector<float> values(inputs.begin(), inputs.end());
  if (info.symmetric) std::ranges::for_each(values, [](float& value) { value = std::fabs(value); });
  const auto at = [&](double share) {
    const auto place = values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
    std::ranges::nth_element(values, place);
    return *place;
  };
  const float largest = std::max(0.0f, at(kPercentile));
  if (info.symmetric) return largest > 0 ? Range{-largest, largest} : whole(inputs);
  return {std::min(0.0f, at(1 - kPercentile)), largest};
}

// How many inputs lie in each of kBins equal parts of a range.
struct Histogram {
  Range range;
  std::vector<double> counts;

  Histogram(std::span<const float> inputs, Range whole_range, bool magnitudes)
      : range(magnitudes ? Range{0, magnitude(whole_range)} : whole_range), counts(kBins) {
    const float width = range.largest - range.least;
    for (const float input : inputs) {
      const float value = (magnitudes ? std::fabs(input) : input) - range.least;
      counts[static_cast<std::size_t>(std::min(kBins - 1, static_cast<int>(value / width * kBins)))] += 1;
    }
  }
  float middle(int bin) const {
    return range.least + (range.largest - range.least) * (static_cast<float>(bin) + 0.5f) / kBins;
  }
};

// The share of the range with the least squared error of what lies in it and what is cut to its ends.
Range least_error(const ActivationInfo& info, std::span<const float> inputs) {
  const Range all = whole(inputs);
  const Histogram histogram(inputs, all, false);
  std::vector<float> middles, rounded(kBins);
  for (int bin = 0; bin < kBins; ++bin) middles.push_back(histogram.middle(bin));
  Range best = all;
  double least = HUGE_VAL;
  for (int share = kShares; share >= kLeastShare; --share) {
    const Range range = scaled(all, static_cast<double>(share) / kShares);
    const encoding::InputScale at = encoding::input_scale(info, range.least, range.largest);
    encoding::round_inputs({&info, at.scale, at.zero}, middles.data(), kBins, rounded.data());
    // Within a bin inputs lie anywhere.
    double error = 0;
    for (std::size_t bin = 0; bin < kBins; ++bin) {
      const double difference = static_cast<double>(rounded[bin]) - static_cast<double>(middles[bin]);
      error += histogram.counts[bin] * difference * difference;
    }
    if (error < least) least = error, best = range;
  }
  return best;
}

// Kullback-Leibler divergence of a histogram of magnitudes cut at `end` bins, what lies beyond in the last one, from
// the same in `levels` steps.
double divergence(const std::vector<double>& counts, int end, int levels) {
  std::vector<double> cut(counts.begin(), counts.begin() + end);
  for (std::size_t bin = static_cast<std::size_t>(end); bin < counts.size(); ++bin) cut.back() += counts[bin];
  double total = 0, sum = 0, steps_total = 0;
  std::vector<double> steps(cut.size());
  for (int level = 0; level < levels; ++level) {
    const int begin = end * level / levels, stop = end * (level + 1) / levels;
    double inside = 0;
    int filled = 0;
    for (int bin = begin; bin < stop; ++bin) {
      inside += counts[static_cast<std::size_t>(bin)];
      filled += cut[static_cast<std::size_t>(bin)] > 0 ? 1 : 0;
    }
    for (int bin = begin; bin < stop; ++bin) {
      if (cut[static_cast<std::size_t>(bin)] > 0) steps[static_cast<std::size_t>(bin)] = inside / filled;
    }
  }
  for (std::size_t bin = 0; bin < cut.size(); ++bin) total += cut[bin], steps_total += steps[bin];
  for (std::size_t bin = 0; bin < cut.size(); ++bin) {
    if (cut[bin] == 0) continue;
    const double p = cut[bin] / total, q = std::max(steps[bin] / steps_total, 1e-12);
    sum += p * std::log(p / q);
  }
  return sum;
}

// The calibration of TensorRT (Migacz, GTC 2017).
Range least_divergence(const ActivationInfo& info, std::span<const float> inputs) {
  const int levels = 1 << (info.bits - 1);
  const Histogram histogram(inputs, whole(inputs), true);
  int best = kBins;
  double least = HUGE_VAL;
  for (int end = levels; end <= kBins; end += kBins / 256) {
    const double value = divergence(histogram.counts, end, levels);
    if (value < least) least = value, best = end;
  }
  const float largest = histogram.range.largest * static_cast<float>(best) / kBins;
  const Range all = whole(inputs);
  return {std::max(-largest, all.least), std::min(largest, all.largest)};
}

constexpr Observer kObservers[] = {
    {"minmax", "the whole range", min_max},
    {"percentile", "all but one in ten thousand", percentile},
    {"mse", "the least squared error", least_error},
    {"kl", "the least divergence of histograms (TensorRT)", least_divergence},
};

}  // namespace

std::span<const Observer> observers() { return kObservers; }

const Observer& get_observer(std::string_view name) {
  std::string known;
  for (const Observer& observer : kObservers) {
    if (observer.name == name) return observer;
    known += (known.empty() ? "" : ", ") + std::string(observer.name);
  }
  fail(ErrorCode::kInvalidArgument, "unknown observer '{}'; one of: {}", name, known);
}

namespace {

Range range_of(const ActivationInfo& info, const Observer& observer, std::span<const float> inputs) {
  if (inputs.empty() || magnitude(whole(inputs)) == 0)
    fail(ErrorCode::kInvalidArgument, "the text leaves all inputs 0: no scale follows");
  return observer.range(info, inputs);
}

}  // namespace

InputRounding observe(const ActivationInfo& info, const Observer& observer, std::span<const float> inputs) {
  const Range range = range_of(info, observer, inputs);
  const encoding::InputScale at = encoding::input_scale(info, range.least, range.largest);
  const InputRounding rounding{&info, at.scale, at.zero};
  encoding::check_rounding(rounding);
  return rounding;
}

float observe_cache(const ActivationInfo& info, const Observer& observer, std::span<const float> values) {
  const bool integers = info.code == encoding::InputCode::kInteger;
  const float half_span = integers ? 127.5f : encoding::largest_level(info);
  return magnitude(range_of(info, observer, values)) / half_span;
}

}  // namespace nibble::calib
