#include "linalg/gram.h"

#include <algorithm>

#include "linalg/blas.h"

extern "C" {
// LAPACK's Cholesky factorization and inverse of a triangular matrix, as the library exports them.
void spotrf_(const char* uplo, const blasint* n, float* a, const blasint* lda, blasint* info);
void strtri_(const char* uplo, const char* diag, const blasint* n, float* a, const blasint* lda, blasint* info);
}

namespace nibble::linalg {

namespace {

constexpr std::int64_t kTile = 512;  // columns of a tile

struct Range {
  std::int64_t begin, size;
};
Range tile(std::int64_t index, std::int64_t n) { return {index * kTile, std::min(kTile, n - index * kTile)}; }

void add_tile(std::int64_t k, const float* a, std::int64_t lda, const Range& rows, const float* b, std::int64_t ldb,
              const Range& cols, float* h) {
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, blas(rows.size), blas(cols.size), blas(k), 1.0f, a + rows.begin,
              blas(lda), b + cols.begin, blas(ldb), 1.0f, h + rows.begin * ldb + cols.begin, blas(ldb));
}

}  // namespace

void add_gram(ExecContext& context, std::int64_t k, std::int64_t n, const float* x, float* h) {
  use_calling_thread_only();
  const std::int64_t tiles = (n + kTile - 1) / kTile;
  // Tiles of the lower triangle, the longest rows first.
  context.pool.parallel_dynamic(tiles * (tiles + 1) / 2, [&](std::int64_t i) {
    std::int64_t row = tiles - 1;
    for (; i > row; --row) i -= row + 1;
    const Range rows = tile(row, n), cols = tile(i, n);
    if (row > i) return add_tile(k, x, n, rows, x, n, cols, h);
    cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, blas(rows.size), blas(k), 1.0f, x + rows.begin, blas(n), 1.0f,
                h + rows.begin * (n + 1), blas(n));
  });
}

void fill_upper(ExecContext& context, std::int64_t n, float* h) {
  constexpr std::int64_t kEdge = 64;  // of the squares that are turned in the cache
  const std::int64_t edges = (n + kEdge - 1) / kEdge;
  context.pool.parallel_dynamic(edges, [&](std::int64_t down) {
    const std::int64_t row_end = std::min(n, (down + 1) * kEdge);
    for (std::int64_t across = down; across < edges; ++across) {
      for (std::int64_t row = down * kEdge; row < row_end; ++row) {
        const std::int64_t col_end = std::min(n, (across + 1) * kEdge);
        for (std::int64_t col = std::max(row + 1, across * kEdge); col < col_end; ++col)
          h[row * n + col] = h[col * n + row];
      }
    }
  });
}

void add_cross(ExecContext& context, std::int64_t k, std::int64_t m, std::int64_t n, const float* a, const float* b,
               float* h) {
  use_calling_thread_only();
  const std::int64_t across = (n + kTile - 1) / kTile, down = (m + kTile - 1) / kTile;
  context.pool.parallel_dynamic(
      across * down, [&](std::int64_t i) { add_tile(k, a, m, tile(i / across, m), b, n, tile(i % across, n), h); });
}

// With J the reversal of order, J a J = L Lᵀ gives a = R Rᵀ for the upper R = J L J, and U = R⁻¹. Reversing rows and
// columns of a dense matrix is reversing its numbers.
bool factor_of_inverse(std::int64_t n, float* a) {
  use_calling_thread_only();
  std::reverse(a, a + n * n);
  const blasint size = blas(n);
  blasint info = 0;
  // Row by row our lower triangle is LAPACK's upper one.
  spotrf_("U", &size, a, &size, &info);
  if (info != 0) return false;
  strtri_("U", "N", &size, a, &size, &info);
  if (info != 0) return false;
  for (std::int64_t row = 0; row < n; ++row) std::fill(a + row * n + row + 1, a + (row + 1) * n, 0.0f);
  std::reverse(a, a + n * n);
  return true;
}

}  // namespace nibble::linalg
