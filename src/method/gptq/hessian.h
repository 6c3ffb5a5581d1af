// What GPTQ needs of the inputs of a linear: the order of its columns and the factor of the inverse Hessian.
#pragma once

#include <cstdint>
#include <vector>

#include "method/quantizer.h"

namespace nibble::method::gptq {

struct Hessian {
  std::int64_t n = 0;
  std::vector<std::int32_t> order;  // column at each place; empty: as they are
  std::vector<bool> dead;           // by column: no input was ever other than zero
  std::vector<float> factor;        // (n, n) by place: the upper triangular U with (H + damping)^-1 = Uᵀ U
  double damping = 0;               // of the mean of the diagonal, as it took: raised until there was a factor
};

// Throws Error{kInvalidArgument} naming the tensor when the gram is missing, of another size, not finite or has a
// negative diagonal, and Error{kFormat} when no damping up to the mean of the diagonal makes it positive definite.
Hessian make_hessian(const Job& job);

}  // namespace nibble::method::gptq
