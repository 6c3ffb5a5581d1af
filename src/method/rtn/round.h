// One number to a neighbouring integer, by any of the rounding rules.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/rng.h"
#include "method/quantizer.h"

namespace nibble::method::rtn {

// Rounds `value`, the one at (row, col) of its tensor: nearest with ties to even; stochastic up with probability value
// - floor(value), by a counter-based draw of (seed, row, col).
inline float round_by(const Options& options, float value, std::int64_t row, std::int64_t col) {
  switch (options.rounding) {
    case Rounding::kFloor:
      return std::floor(value);
    case Rounding::kCeil:
      return std::ceil(value);
    case Rounding::kStochastic:
      return std::floor(value +
                        random_uniform(options.seed, static_cast<std::uint64_t>(row), static_cast<std::uint64_t>(col)));
    case Rounding::kNearest:
      break;
  }
  return std::nearbyint(value);
}

}  // namespace nibble::method::rtn
