// Dense matrix products: the only floor that sees a BLAS. Calls run on the calling thread alone; parallel work is cut
// into tiles whose shapes do not depend on the number of threads, so that results do not either.
#pragma once

#include <cstdint>

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

}  // namespace nibble::linalg
