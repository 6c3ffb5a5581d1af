#include <algorithm>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "linalg/bf16_product.h"
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

namespace {

// body(rows, cols, from_a, from_b, to) of every tile, over the pool.
template <typename Real, typename Body>
void for_tiles(ExecContext& context, Lies a_lies, Lies b_lies, std::int64_t m, std::int64_t n, const Real* a,
               std::int64_t lda, const Real* b, std::int64_t ldb, Real* c, std::int64_t ldc, Body&& body) {
  if (m == 0 || n == 0) return;
  const Tiling tile = tiling(m, n);
  const std::int64_t across = tiles_of(n, tile.cols);
  context.pool.parallel_dynamic(tiles_of(m, tile.rows) * across, [&](std::int64_t index) {
    const std::int64_t row = index / across * tile.rows, col = index % across * tile.cols;
    const Real* from_a = a_lies == Lies::kAsIs ? a + row * lda : a + row;
    const Real* from_b = b_lies == Lies::kAsIs ? b + col : b + col * ldb;
    body(std::min(tile.rows, m - row), std::min(tile.cols, n - col), from_a, from_b, c + row * ldc + col);
  });
}

}  // namespace

template <typename Real>
void multiply(ExecContext& context, Lies a_lies, Lies b_lies, std::int64_t m, std::int64_t n, std::int64_t k,
              Real alpha, const Real* a, std::int64_t lda, const Real* b, std::int64_t ldb, Real beta, Real* c,
              std::int64_t ldc) {
  for_tiles(context, a_lies, b_lies, m, n, a, lda, b, ldb, c, ldc,
            [&](std::int64_t rows, std::int64_t cols, const Real* from_a, const Real* from_b, Real* to) {
              multiply(a_lies, b_lies, rows, cols, k, alpha, from_a, lda, from_b, ldb, beta, to, ldc);
            });
}

bool has_bf16_products(Isa isa) { return isa >= Isa::kAmx; }

namespace {
constexpr std::pair<std::string_view, Precision> kWords[] = {
    {"f32", Precision::kF32}, {"bf16x3", Precision::kBf16x3}, {"bf16", Precision::kBf16}};
}  // namespace

std::string_view precision_name(Precision precision) { return kWords[static_cast<std::size_t>(precision)].first; }

Precision parse_precision(std::string_view word, Isa isa) {
  if (word == "auto") return has_bf16_products(isa) ? Precision::kBf16x3 : Precision::kF32;
  for (const auto& [name, precision] : kWords) {
    if (name != word) continue;
    if (precision != Precision::kF32 && !has_bf16_products(isa))
      fail(ErrorCode::kUnsupported, "no {} products with {} here: it takes AMX", word, isa_name(isa));
    return precision;
  }
  fail(ErrorCode::kInvalidArgument, "unknown precision '{}'; one of: auto, f32, bf16x3, bf16", word);
}

void multiply(ExecContext& context, Precision precision, Lies a_lies, Lies b_lies, std::int64_t m, std::int64_t n,
              std::int64_t k, const float* a, std::int64_t lda, const float* b, std::int64_t ldb, bool adds, float* c,
              std::int64_t ldc) {
  if (precision == Precision::kF32)
    return multiply(context, a_lies, b_lies, m, n, k, 1.0f, a, lda, b, ldb, adds ? 1.0f : 0.0f, c, ldc);
  const int parts = precision == Precision::kBf16x3 ? 2 : 1;
  for_tiles(context, a_lies, b_lies, m, n, a, lda, b, ldb, c, ldc,
            [&](std::int64_t rows, std::int64_t cols, const float* from_a, const float* from_b, float* to) {
              thread_local AlignedBuffer packed(kBf16PackedBytes);
              bf16_product({{from_a, lda, a_lies == Lies::kTransposed},
                            {from_b, ldb, b_lies == Lies::kTransposed},
                            rows,
                            cols,
                            k,
                            parts,
                            adds,
                            to,
                            ldc,
                            reinterpret_cast<std::uint8_t*>(packed.data())});
            });
}

template void multiply<float>(ExecContext&, Lies, Lies, std::int64_t, std::int64_t, std::int64_t, float, const float*,
                              std::int64_t, const float*, std::int64_t, float, float*, std::int64_t);
template void multiply<double>(ExecContext&, Lies, Lies, std::int64_t, std::int64_t, std::int64_t, double,
                               const double*, std::int64_t, const double*, std::int64_t, double, double*, std::int64_t);

}  // namespace nibble::linalg
