// Dense matrix products: the only floor that sees a BLAS. Calls run on the calling thread alone; parallel work is cut
// into tiles whose shapes do not depend on the number of threads, so that results do not either.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/cpu.h"
#include "base/exec_context.h"

namespace nibble::linalg {

// c (m, n) = a (m, k) * b (n, k)^T, all row-major with the given row strides in floats. Thread-safe.
void gemm_nt(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
             std::int64_t ldb, float* c, std::int64_t ldc);

// c (m, n) = a (m, k) * b (k, n), all row-major with the given row strides in floats. Thread-safe.
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
          std::int64_t ldb, float* c, std::int64_t ldc);
// c (m, n) -= a (m, k) * b (k, n), all row-major with the given row strides in floats. Thread-safe.
void gemm_subtract(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
                   std::int64_t ldb, float* c, std::int64_t ldc);

// How a factor of a product lies in memory.
enum class Lies : std::uint8_t { kAsIs, kTransposed };

// c (m, n) = alpha * a b + beta * c, of a (m, k) and b (k, n), row-major with the given strides in numbers; a
// transposed factor lies as (k, m) or (n, k). beta 0 reads nothing of c. Real: float, double. Thread-safe.
template <typename Real>
void multiply(Lies a_lies, Lies b_lies, std::int64_t m, std::int64_t n, std::int64_t k, Real alpha, const Real* a,
              std::int64_t lda, const Real* b, std::int64_t ldb, Real beta, Real* c, std::int64_t ldc);
// The same cut into tiles over the pool; the result does not depend on the number of threads.
template <typename Real>
void multiply(ExecContext& context, Lies a_lies, Lies b_lies, std::int64_t m, std::int64_t n, std::int64_t k,
              Real alpha, const Real* a, std::int64_t lda, const Real* b, std::int64_t ldb, Real beta, Real* c,
              std::int64_t ldc);

// How the factors of a product of f32 are rounded; sums are f32 in any case.
enum class Precision : std::uint8_t {
  kF32,
  kBf16x3,  // each number as the sum of two bf16, three products of four: 16 bits
  kBf16,    // 8 bits
};
// Has this instruction set products of bf16 that are faster than those of f32?
bool has_bf16_products(Isa isa);
// "f32", "bf16x3", "bf16", or "auto": bf16x3 where it is faster. Throws Error{kInvalidArgument} for another word,
// Error{kUnsupported} where the set has no such products.
Precision parse_precision(std::string_view word, Isa isa);
std::string_view precision_name(Precision precision);
// As the last, with alpha 1 and beta 1 or 0. What is not kF32 needs has_bf16_products() of the machine; k must not be 0
// then.
void multiply(ExecContext& context, Precision precision, Lies a_lies, Lies b_lies, std::int64_t m, std::int64_t n,
              std::int64_t k, const float* a, std::int64_t lda, const float* b, std::int64_t ldb, bool adds, float* c,
              std::int64_t ldc);

}  // namespace nibble::linalg
