#include "method/affine_range.h"

#include <algorithm>
#include <array>
#include <vector>

#include "method/input.h"

namespace nibble::method {

Range range_of(const float* values, std::int64_t n) {
  const auto [low, high] = std::minmax_element(values, values + n);
  return {*low, *high};
}

// Sum of importance * error^2 at nearest rounding.
float range_error(const encoding::AffineParams& params, const float* values, const float* importance, std::int64_t n,
                  const encoding::ScaleZero& at) {
  const encoding::CodeRange codes = encoding::code_range(params);
  const float lo = static_cast<float>(codes.min - at.zero), hi = static_cast<float>(codes.max - at.zero);
  const float inverse = at.scale > 0 ? 1.0f / at.scale : 0.0f;
  constexpr int kParts = 16;  // in a fixed order, so that the compiler may keep them in a vector
  std::array<float, kParts> sums{};
  auto add = [&](std::int64_t i, std::size_t part) {
    constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
    const float steps = (std::clamp(values[i] * inverse, lo, hi) + kMagic) - kMagic;
    const float error = values[i] - steps * at.scale;
    sums[part] += (importance != nullptr ? importance[i] : 1.0f) * error * error;
  };
  std::int64_t i = 0;
  for (; i + kParts <= n; i += kParts) {
    for (std::size_t part = 0; part < kParts; ++part) add(i + static_cast<std::int64_t>(part), part);
  }
  for (; i < n; ++i) add(i, 0);
  float sum = 0;
  for (const float part : sums) sum += part;
  return sum;
}

encoding::ScaleZero choose_scale(const encoding::AffineParams& params, RangeRule rule, const float* values,
                                 const float* importance, std::int64_t n) {
  const Range range = range_of(values, n);
  encoding::ScaleZero best = encoding::scale_of_range(params, range.low, range.high);
  if (rule == RangeRule::kMinMax) return best;
  float least = range_error(params, values, importance, n, best);
  for (int i = 1; i < kShrinks; ++i) {
    const encoding::ScaleZero at = encoding::scale_of_range(params, shrink(i) * range.low, shrink(i) * range.high);
    const float error = range_error(params, values, importance, n, at);
    if (error < least) {
      least = error;
      best = at;
    }
  }
  return best;
}

const float* importance_at(const Job& job, std::span<const float> importance, std::int64_t row, std::int64_t col) {
  if (importance.empty()) return nullptr;
  const std::int64_t cols = job.shape.cols();
  const std::int64_t rows_per_expert = job.shape.rows() * cols / static_cast<std::int64_t>(importance.size());
  return importance.data() + row / rows_per_expert * cols + col;
}

namespace {

constexpr std::int64_t kChunkRows = 64;
std::size_t n_chunks(const RowSource& weights) {
  return static_cast<std::size_t>((weights.rows() + kChunkRows - 1) / kChunkRows);
}

// Calls body(chunk, row, values) for every row; each chunk of rows is one task.
template <typename Body>
void for_each_row(ExecContext& context, const RowSource& weights, Body&& body) {
  context.pool.parallel_dynamic(static_cast<std::int64_t>(n_chunks(weights)), [&](std::int64_t chunk) {
    context.check_cancelled();
    std::vector<float> row(static_cast<std::size_t>(weights.cols()));
    const std::int64_t end = std::min(weights.rows(), (chunk + 1) * kChunkRows);
    for (std::int64_t r = chunk * kChunkRows; r < end; ++r) {
      weights.read(r, r + 1, row.data());
      body(static_cast<std::size_t>(chunk), r, row.data());
    }
  });
}

Range tensor_range(ExecContext& context, const Job& job, const RowSource& weights) {
  std::vector<Range> ranges(n_chunks(weights));
  for_each_row(context, weights, [&](std::size_t chunk, std::int64_t row, const float* values) {
    require_representable(job, values, row, 1);
    const Range range = range_of(values, weights.cols());
    const bool first = row % kChunkRows == 0;
    ranges[chunk].low = first ? range.low : std::min(ranges[chunk].low, range.low);
    ranges[chunk].high = first ? range.high : std::max(ranges[chunk].high, range.high);
  });
  Range all = ranges.empty() ? Range{} : ranges.front();
  for (const Range& range : ranges) all = {std::min(all.low, range.low), std::max(all.high, range.high)};
  return all;
}

}  // namespace

encoding::ScaleZero choose_whole_scale(ExecContext& context, const Job& job, std::span<const float> importance,
                                       const RowSource& weights) {
  const encoding::AffineParams params = affine_params(job);
  const Range range = tensor_range(context, job, weights);
  if (job.options.range == RangeRule::kMinMax) return encoding::scale_of_range(params, range.low, range.high);
  std::array<encoding::ScaleZero, kShrinks> candidates;
  for (int i = 0; i < kShrinks; ++i) {
    candidates[static_cast<std::size_t>(i)] =
        encoding::scale_of_range(params, shrink(i) * range.low, shrink(i) * range.high);
  }
  // Summed per chunk and then in order, so that the result does not depend on the threads.
  std::vector<std::array<double, kShrinks>> errors(n_chunks(weights));
  for_each_row(context, weights, [&](std::size_t chunk, std::int64_t row, const float* values) {
    const float* weight = importance_at(job, importance, row, 0);
    for (std::size_t i = 0; i < kShrinks; ++i)
      errors[chunk][i] += static_cast<double>(range_error(params, values, weight, weights.cols(), candidates[i]));
  });
  std::array<double, kShrinks> sums{};
  for (const auto& chunk : errors) {
    for (std::size_t i = 0; i < kShrinks; ++i) sums[i] += chunk[i];
  }
  const auto least = std::min_element(sums.begin(), sums.end()) - sums.begin();
  return candidates[static_cast<std::size_t>(least)];
}

}  // namespace nibble::method
