#include "linalg/gemm.h"

#include "linalg/blas.h"

namespace nibble::linalg {

void gemm_nt(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
             std::int64_t ldb, float* c, std::int64_t ldc) {
  use_calling_thread_only();
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, blas(m), blas(n), blas(k), 1.0f, a, blas(lda), b, blas(ldb),
              0.0f, c, blas(ldc));
}

void gemm(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
          std::int64_t ldb, float* c, std::int64_t ldc) {
  use_calling_thread_only();
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, blas(m), blas(n), blas(k), 1.0f, a, blas(lda), b, blas(ldb),
              0.0f, c, blas(ldc));
}

void gemm_subtract(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
                   std::int64_t ldb, float* c, std::int64_t ldc) {
  use_calling_thread_only();
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, blas(m), blas(n), blas(k), -1.0f, a, blas(lda), b, blas(ldb),
              1.0f, c, blas(ldc));
}

}  // namespace nibble::linalg
