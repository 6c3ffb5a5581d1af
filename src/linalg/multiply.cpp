#include <algorithm>

#include "linalg/blas.h"
#include "linalg/gemm.h"

namespace nibble::linalg {

namespace {

CBLAS_TRANSPOSE transpose(Lies lies) { return lies == Lies::kAsIs ? CblasNoTrans : CblasTrans; }

// Rows and columns of a tile: large enough for the library to be near its best, small enough to be shared out.
constexpr std::int64_t kMostRows = 512, kMostCols = 512, kLeastTiles = 8, kLeastEdge = 64;

struct Tiling {
  std::int64_t rows, cols;
};

std::int64_t tiles_of(std::int64_t n, std::int64_t edge) { return (n + edge - 1) / edge; }

Tiling tiling(std::int64_t m, std::int64_t n) {
  Tiling tile = {std::min(m, kMostRows), std::min(n, kMostCols)};
  while (tiles_of(m, tile.rows) * tiles_of(n, tile.cols) < kLeastTiles) {
    std::int64_t& longer = tile.rows >= tile.cols ? tile.rows : tile.cols;
    if (longer <= kLeastEdge) break;
    longer = std::max(kLeastEdge, (longer / 2 + 15) / 16 * 16);
  }
  return tile;
}

}  // namespace

template <>
void multiply<float>(Lies a_lies, Lies b_lies, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
                     const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c,
                     std::int64_t ldc) {
  use_calling_thread_only();
  cblas_sgemm(CblasRowMajor, transpose(a_lies), transpose(b_lies), blas(m), blas(n), blas(k), alpha, a, blas(lda), b,
              blas(ldb), beta, c, blas(ldc));
}

template <>
void multiply<double>(Lies a_lies, Lies b_lies, std::int64_t m, std::int64_t n, std::int64_t k, double alpha,
                      const double* a, std::int64_t lda, const double* b, std::int64_t ldb, double beta, double* c,
                      std::int64_t ldc) {
  use_calling_thread_only();
  cblas_dgemm(CblasRowMajor, transpose(a_lies), transpose(b_lies), blas(m), blas(n), blas(k), alpha, a, blas(lda), b,
              blas(ldb), beta, c, blas(ldc));
}

template <typename Real>
void multiply(ExecContext& context, Lies a_lies, Lies b_lies, std::int64_t m, std::int64_t n, std::int64_t k,
              Real alpha, const Real* a, std::int64_t lda, const Real* b, std::int64_t ldb, Real beta, Real* c,
              std::int64_t ldc) {
  if (m == 0 || n == 0) return;
  const Tiling tile = tiling(m, n);
  const std::int64_t across = tiles_of(n, tile.cols);
  context.pool.parallel_dynamic(tiles_of(m, tile.rows) * across, [&](std::int64_t index) {
    const std::int64_t row = index / across * tile.rows, col = index % across * tile.cols;
    const Real* from_a = a_lies == Lies::kAsIs ? a + row * lda : a + row;
    const Real* from_b = b_lies == Lies::kAsIs ? b + col : b + col * ldb;
    multiply(a_lies, b_lies, std::min(tile.rows, m - row), std::min(tile.cols, n - col), k, alpha, from_a, lda, from_b,
             ldb, beta, c + row * ldc + col, ldc);
  });
}

template void multiply<float>(ExecContext&, Lies, Lies, std::int64_t, std::int64_t, std::int64_t, float, const float*,
                              std::int64_t, const float*, std::int64_t, float, float*, std::int64_t);
template void multiply<double>(ExecContext&, Lies, Lies, std::int64_t, std::int64_t, std::int64_t, double,
                               const double*, std::int64_t, const double*, std::int64_t, double, double*, std::int64_t);

}  // namespace nibble::linalg
