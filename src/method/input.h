// What every method checks of the weights and statistics it is given.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "method/quantizer.h"

namespace nibble::method {

// Throws Error{kFormat} naming tensor, row and column of the first weight that is NaN, infinite or larger than `limit`,
// the largest magnitude `target` can hold. weights: (n_rows, cols), the first of them row `row_begin` of the tensor.
void require_representable(const Job& job, const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                           float limit = std::numeric_limits<float>::max());

// Importance made fit for use: (experts, cols), mean 1 for each expert; inputs that were hardly ever seen get at least
// a small share, an expert that was never routed to all ones. Empty when the job has none. Throws
// Error{kInvalidArgument} for a size that does not go with the shape, NaN or negative values.
std::vector<float> prepare_importance(const Job& job);

// Throws Error{kInvalidArgument} naming tensor and method when the gram is missing, of another size, not finite or has
// a negative diagonal.
void require_gram(const Job& job, std::string_view method);

}  // namespace nibble::method
