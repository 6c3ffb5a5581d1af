// The scale and zero of a group of weights, from their range or by search: of every method on the affine family.
#pragma once

#include <cstdint>

#include "encoding/affine.h"
#include "method/quantizer.h"

namespace nibble::method {

// The searched range: both ends shrunk by 1 - i / 100, the i with least sum of importance * error^2 (GPTQ's grid, which
// takes |error|^2.4).
inline constexpr int kShrinks = 80;
constexpr float shrink(int i) { return 1.0f - static_cast<float>(i) / 100.0f; }

// Of the target, with what the options say of its zeros.
inline encoding::AffineParams affine_params(const Job& job) {
  encoding::AffineParams params = job.target->affine;
  params.least_zero = job.options.least_zero;
  return params;
}

struct Range {
  float low = 0, high = 0;
};
Range range_of(const float* values, std::int64_t n);

// Sum of importance * error^2 at nearest rounding; without importance of error^2.
float range_error(const encoding::AffineParams& params, const float* values, const float* importance, std::int64_t n,
                  const encoding::ScaleZero& at);

encoding::ScaleZero choose_scale(const encoding::AffineParams& params, RangeRule rule, const float* values,
                                 const float* importance, std::int64_t n);

// Of prepare_importance(): that of one row, from `col` on; null without importance.
const float* importance_at(const Job& job, std::span<const float> importance, std::int64_t row, std::int64_t col);

// One scale for the whole tensor, by job.options.range. Throws as require_representable(). The result does not depend
// on the number of threads.
encoding::ScaleZero choose_whole_scale(ExecContext& context, const Job& job, std::span<const float> importance,
                                       const RowSource& weights);

}  // namespace nibble::method
