// Sums of products of activations, and the factor that second-order rounding asks of them.
#pragma once

#include <cstdint>

#include "base/exec_context.h"

namespace nibble::linalg {

// h (n, n) += xᵀ x of x (k, n), the lower triangle only: fill_upper() when all is added. Cut into tiles over the pool;
// the result does not depend on the number of threads.
void add_gram(ExecContext& context, std::int64_t k, std::int64_t n, const float* x, float* h);
// Mirrors the lower triangle of h (n, n).
void fill_upper(ExecContext& context, std::int64_t n, float* h);
// h (m, n) += aᵀ b of a (k, m) and b (k, n).
void add_cross(ExecContext& context, std::int64_t k, std::int64_t m, std::int64_t n, const float* a, const float* b,
               float* h);

// Replaces the symmetric a (n, n) by the upper triangular U with a⁻¹ = Uᵀ U (zeros below): the Cholesky factor of the
// inverse that GPTQ works with (arXiv 2210.17323, 3.3), without making the inverse. False when a is not positive
// definite to working precision; a is lost then.
bool factor_of_inverse(std::int64_t n, float* a);

}  // namespace nibble::linalg
