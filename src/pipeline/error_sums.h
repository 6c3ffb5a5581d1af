// What a change of packing did to the weights, summed while they pass by.
#pragma once

#include <cstdint>

namespace nibble::pipeline {

struct ErrorSums {
  double w2 = 0;  // sum w²   of what was read
  double v2 = 0;  // sum v²   of what was written
  double e2 = 0;  // sum (w - v)²

  void add(const ErrorSums& other) {
    w2 += other.w2;
    v2 += other.v2;
    e2 += other.e2;
  }
  double relative_mse() const;  // 0 for zeros held exactly, infinite for zeros that became something
  double snr_db() const;        // 0 when exact
  double cosine() const;        // 1 when exact
};

// Sums over n values, in an order that depends on n only. Not finite when a value is not, or when squares overflow.
ErrorSums sum_errors(const float* w, const float* v, std::int64_t n) noexcept;

// Index of the first value that is NaN or infinite; n when there is none.
std::int64_t find_not_finite(const float* values, std::int64_t n) noexcept;

}  // namespace nibble::pipeline
