#include "method/target.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

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

using Rows = std::vector<float>;  // (rows, cols)

// H + λ, and the factor U of its inverse Uᵀ U.
struct Damped {
  std::span<const float> gram;
  float added;
  std::int64_t n;
  std::vector<float> factor;

  Rows times_inverse(const Rows& rows) const {
    Rows half(rows.size()), out(rows.size());
    const std::int64_t count = static_cast<std::int64_t>(rows.size()) / n;
    linalg::gemm_nt(count, n, n, rows.data(), n, factor.data(), n, half.data(), n);
    linalg::gemm(count, n, n, half.data(), n, factor.data(), n, out.data(), n);
    return out;
  }
  // rows (H + λ)⁻¹ with one step of refinement: f32 loses as many digits as the matrix has in its condition.
  Rows solve(Rows rows) const {
    Rows out = times_inverse(rows);
    const std::int64_t count = static_cast<std::int64_t>(rows.size()) / n;
    linalg::gemm_subtract(count, n, n, out.data(), n, gram.data(), n, rows.data(), n);
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] -= added * out[i];
    const Rows more = times_inverse(rows);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += more[i];
    return out;
  }
};

// rows (plus - minus).
Rows times_difference(const Rows& rows, std::span<const float> plus, std::span<const float> minus, std::int64_t n) {
  Rows out(rows.size());
  const std::int64_t count = static_cast<std::int64_t>(rows.size()) / n;
  linalg::gemm(count, n, n, rows.data(), n, plus.data(), n, out.data(), n);
  linalg::gemm_subtract(count, n, n, rows.data(), n, minus.data(), n, out.data(), n);
  return out;
}

// Added to until there is a factor, as in make_hessian() of gptq.
Damped damp(const Job& job, double mean) {
  Damped damped{job.statistics.gram, 0, job.shape.cols(), {}};
  for (double damping = std::max(job.options.damping, 1e-6); damping <= 10; damping *= 10) {
    damped.added = static_cast<float>(damping * mean);
    damped.factor.assign(damped.gram.begin(), damped.gram.end());
    for (std::int64_t i = 0; i < damped.n; ++i)
      damped.factor[static_cast<std::size_t>(i * damped.n + i)] += damped.added;
    if (linalg::factor_of_inverse(damped.n, damped.factor.data())) return damped;
  }
  fail(ErrorCode::kFormat, "tensor '{}': the products of its inputs make no positive definite matrix", job.tensor);
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
  double mean = 0;
  for (std::int64_t i = 0; i < cols_; ++i)
    mean += static_cast<double>(gram[static_cast<std::size_t>(i * cols_ + i)]) / static_cast<double>(cols_);
  const Damped damped = damp(job, mean);
  by_row_ = weights.rows() <= cols_;
  const std::int64_t n_rows = by_row_ ? weights.rows() : cols_;
  step_.resize(static_cast<std::size_t>(n_rows * cols_));
  context.pool.parallel_dynamic((n_rows + kTileRows - 1) / kTileRows, [&](std::int64_t tile) {
    context.check_cancelled();
    const std::int64_t row = tile * kTileRows, end = std::min(n_rows, row + kTileRows);
    Rows change;
    if (by_row_) {
      Rows w(static_cast<std::size_t>((end - row) * cols_));
      weights.read(row, end, w.data());
      change = times_difference(w, cross, gram, cols_);
    } else {
      for (std::int64_t i = row * cols_; i < end * cols_; ++i)
        change.push_back(cross[static_cast<std::size_t>(i)] - gram[static_cast<std::size_t>(i)]);
    }
    std::ranges::copy(damped.solve(std::move(change)), step_.begin() + row * cols_);
  });
  share_ = job.options.correction;
  if (job.statistics.held_out.empty() || job.statistics.held_out_cross.empty()) return;
  check(job, job.statistics.held_out, "products of held-out inputs");
  check(job, job.statistics.held_out_cross, "products of the held-out inputs before and after");
  share_ = best_share(context, job, weights);
}

// With w + a δ for w, the error on what was held out changes by 2 a δ·(w H - w C) + a² δ·(δ H).
double Target::best_share(ExecContext& context, const Job& job, const RowSource& weights) const {
  const std::span<const float> held_out = job.statistics.held_out, cross = job.statistics.held_out_cross;
  const std::int64_t n_tiles = (weights.rows() + kTileRows - 1) / kTileRows;
  std::vector<std::array<double, 2>> sums(static_cast<std::size_t>(n_tiles));
  context.pool.parallel_dynamic(n_tiles, [&](std::int64_t tile) {
    const std::int64_t row = tile * kTileRows, rows = std::min(kTileRows, weights.rows() - row);
    Rows w(static_cast<std::size_t>(rows * cols_));
    weights.read(row, row + rows, w.data());
    const Rows delta = change_of(w.data(), row, rows);
    Rows product = times_difference(w, held_out, cross, cols_);
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

std::vector<float> Target::change_of(const float* weights, std::int64_t row_begin, std::int64_t n_rows) const {
  const auto begin = step_.begin() + row_begin * cols_;
  if (by_row_) return {begin, begin + n_rows * cols_};
  Rows change(static_cast<std::size_t>(n_rows * cols_));
  linalg::gemm(n_rows, cols_, cols_, weights, cols_, step_.data(), cols_, change.data(), cols_);
  return change;
}

void Target::correct(float* weights, std::int64_t row_begin, std::int64_t n_rows) const {
  if (!(share_ > 0)) return;
  const Rows change = change_of(weights, row_begin, n_rows);
  for (std::size_t i = 0; i < change.size(); ++i) weights[i] += static_cast<float>(share_) * change[i];
}

}  // namespace nibble::method
