#include "method/affine_range.h"

#include <algorithm>
#include <array>

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

}  // namespace nibble::method
