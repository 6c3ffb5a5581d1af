#include "method/target.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "linalg/gemm.h"
#include "linalg/gram.h"

namespace nibble::method {

namespace {

constexpr std::int64_t kTileRows = 64;

void check(const Job& job, std::span<const float> matrix, std::string_view what) {
  const auto n = static_cast<std::size_t>(job.shape.cols());
  if (matrix.size() != n * n) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}': {} {} do not go with {} columns", job.tensor, matrix.size(), what,
         n);
  }
  if (std::all_of(matrix.begin(), matrix.end(), [](float v) { return std::isfinite(v); })) return;
  fail(ErrorCode::kInvalidArgument, "tensor '{}': its {} are not all finite", job.tensor, what);
}

// out (n, n) = a (n, n) (Uᵀ U), by tiles of rows.
void times_inverse(ExecContext& context, std::int64_t n, const std::vector<float>& a, const std::vector<float>& factor,
                   std::vector<float>& out) {
  context.pool.parallel_dynamic((n + kTileRows - 1) / kTileRows, [&](std::int64_t tile) {
    context.check_cancelled();
    const std::int64_t row = tile * kTileRows, rows = std::min(kTileRows, n - row);
    std::vector<float> half(static_cast<std::size_t>(rows * n));
    linalg::gemm_nt(rows, n, n, a.data() + row * n, n, factor.data(), n, half.data(), n);
    linalg::gemm(rows, n, n, half.data(), n, factor.data(), n, out.data() + row * n, n);
  });
}

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

}  // namespace

void Target::prepare(ExecContext& context, const Job& job, const RowSource& weights) {
  const std::span<const float> gram = job.statistics.gram, cross = job.statistics.cross;
  step_.clear();
  share_ = 0;
  if (cross.empty() || !(job.options.correction > 0)) return;
  check(job, gram, "products of inputs");
  check(job, cross, "products of the inputs before and after");
  cols_ = job.shape.cols();
  std::vector<float> damped(gram.begin(), gram.end()), change(damped.size());
  double mean = 0;
  for (std::int64_t i = 0; i < cols_; ++i)
    mean += static_cast<double>(gram[static_cast<std::size_t>(i * cols_ + i)]) / static_cast<double>(cols_);
  for (std::int64_t i = 0; i < cols_; ++i)
    damped[static_cast<std::size_t>(i * cols_ + i)] += static_cast<float>(std::max(job.options.damping, 1e-6) * mean);
  for (std::size_t i = 0; i < change.size(); ++i) change[i] = cross[i] - gram[i];
  std::vector<float> factor = damped;
  if (!linalg::factor_of_inverse(cols_, factor.data()))
    fail(ErrorCode::kFormat, "tensor '{}': the products of its inputs make no positive definite matrix", job.tensor);
  step_.resize(change.size());
  times_inverse(context, cols_, change, factor, step_);
  // One step of refinement: f32 loses as many digits as the matrix has in its condition.
  context.pool.parallel_dynamic((cols_ + kTileRows - 1) / kTileRows, [&](std::int64_t tile) {
    const std::int64_t row = tile * kTileRows, rows = std::min(kTileRows, cols_ - row);
    linalg::gemm_subtract(rows, cols_, cols_, step_.data() + row * cols_, cols_, damped.data(), cols_,
                          change.data() + row * cols_, cols_);
  });
  std::vector<float> more(change.size());
  times_inverse(context, cols_, change, factor, more);
  for (std::size_t i = 0; i < step_.size(); ++i) step_[i] += more[i];
  share_ = job.options.correction;
  if (job.statistics.held_out.empty() || job.statistics.held_out_cross.empty()) return;
  check(job, job.statistics.held_out, "products of held-out inputs");
  check(job, job.statistics.held_out_cross, "products of the held-out inputs before and after");
  share_ = best_share(context, job, weights);
}

// With w + a δ for w, the error on what was held out changes by 2 a δ·(w H - w C) + a² δ·(δ H).
double Target::best_share(ExecContext& context, const Job& job, const RowSource& weights) const {
  const std::span<const float> held_out = job.statistics.held_out, cross = job.statistics.held_out_cross;
  std::vector<float> change(held_out.size());
  for (std::size_t i = 0; i < change.size(); ++i) change[i] = held_out[i] - cross[i];
  const std::int64_t n_tiles = (weights.rows() + kTileRows - 1) / kTileRows;
  std::vector<std::array<double, 2>> sums(static_cast<std::size_t>(n_tiles));
  context.pool.parallel_dynamic(n_tiles, [&](std::int64_t tile) {
    const std::int64_t row = tile * kTileRows, rows = std::min(kTileRows, weights.rows() - row);
    std::vector<float> w(static_cast<std::size_t>(rows * cols_)), delta(w.size()), product(w.size());
    weights.read(row, row + rows, w.data());
    linalg::gemm(rows, cols_, cols_, w.data(), cols_, step_.data(), cols_, delta.data(), cols_);
    linalg::gemm(rows, cols_, cols_, w.data(), cols_, change.data(), cols_, product.data(), cols_);
    auto& [linear, square] = sums[static_cast<std::size_t>(tile)];
    linear = dot(delta, product);
    linalg::gemm(rows, cols_, cols_, delta.data(), cols_, held_out.data(), cols_, product.data(), cols_);
    square = dot(delta, product);
  });
  double linear = 0, square = 0;
  for (const auto& part : sums) {
    linear += part[0];
    square += part[1];
  }
  double best = 0, least = 0;
  for (const double share : {0.25, 0.5, job.options.correction}) {
    const double error = 2 * share * linear + share * share * square;
    if (!(error < least)) continue;
    least = error;
    best = share;
  }
  return best;
}

void Target::correct(float* weights, std::int64_t n_rows) const {
  if (!(share_ > 0)) return;
  const std::vector<float> before(weights, weights + n_rows * cols_);
  std::vector<float> delta(before.size());
  linalg::gemm(n_rows, cols_, cols_, before.data(), cols_, step_.data(), cols_, delta.data(), cols_);
  for (std::size_t i = 0; i < delta.size(); ++i) weights[i] += static_cast<float>(share_) * delta[i];
}

}  // namespace nibble::method
