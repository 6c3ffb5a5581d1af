#include "method/gptq/affine.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "linalg/gemm.h"
#include "method/affine_range.h"
#include "method/affine_rows.h"
#include "method/gptq/affine_descent.h"
#include "method/gptq/hessian.h"
#include "method/input.h"
#include "method/layer.h"
#include "method/target.h"

namespace nibble::method::gptq {

namespace {

using encoding::AffineParams;
using encoding::Granularity;
using encoding::ScaleZero;

constexpr std::int64_t kBlock = 128;  // columns whose errors are spread to all later ones at once

// How the scale of a group is chosen.
struct Grid {
  RangeRule rule;
  bool weighted;  // by the gram's diagonal
};

class Affine final : public Quantizer {
 public:
  explicit Affine(const Job& job) : job_(job), params_(affine_params(job)) {}

  void prepare(ExecContext& context, const RowSource& weights) override {
    corrected_.prepare(context, job_, weights);  // its memory is free again before more is taken
    hessian_ = make_hessian(job_);
    const std::int64_t cols = job_.shape.cols();
    for (std::int64_t c = 0; c < cols; ++c)
      diagonal_.push_back(job_.statistics.gram[static_cast<std::size_t>(c * cols + c)]);
    if (job_.options.effort > 0) descent_ = AffineDescent(params_, cols, job_.statistics.gram);
    if (params_.granularity != Granularity::kTensor) return;
    Job job = job_;
    if (job_.options.effort > 0) job.options.range = RangeRule::kMse;
    // Of the weights as they are: the sweep changes them only by what rounding costs.
    whole_ = choose_whole_scale(context, job, job_.options.effort > 0 ? diagonal_ : std::vector<float>{}, weights);
  }

  void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                     const RowsOut& out) const override {
    require_representable(job_, weights, row_begin, n_rows);
    if (!hessian_) fail(ErrorCode::kInternal, "tensor '{}': not prepared", job_.tensor);
    const std::int64_t cols = job_.shape.cols();
    // Weights of inputs that are never there are zero, as in the reference.
    std::vector<float> target(weights, weights + n_rows * cols);
    corrected_.correct(target.data(), row_begin, n_rows);
    for (std::size_t i = 0; i < target.size(); ++i)
      if (hessian_->dead[i % static_cast<std::size_t>(cols)]) target[i] = 0;
    AffineRows rows = sweep(target, n_rows, {job_.options.range, false});
    if (job_.options.effort > 0) improve(rows, target);
    write_rows(job_, rows, row_begin, out);
  }

 private:
  std::int64_t column(std::int64_t place) const {
    return hessian_->order.empty() ? place : hessian_->order[static_cast<std::size_t>(place)];
  }

  // target: (n, cols). With the columns in an order of their own every group's scale is chosen before the sweep, from
  // the weights as they were.
  AffineRows sweep(const std::vector<float>& target, std::int64_t n_rows, const Grid& grid) const {
    const std::int64_t cols = job_.shape.cols();
    AffineRows rows(params_, n_rows, cols);
    std::fill(rows.scales.begin(), rows.scales.end(), whole_);
    std::vector<float> rest(target.size()), errors(static_cast<std::size_t>(n_rows * kBlock));
    for (std::int64_t r = 0; r < n_rows; ++r) {
      const float* row = target.data() + r * cols;
      for (std::int64_t g = 0; g < rows.groups && !hessian_->order.empty(); ++g) choose(grid, rows, r, g, row);
      for (std::int64_t place = 0; place < cols; ++place)
        rest[static_cast<std::size_t>(r * cols + place)] = row[column(place)];
    }
    for (std::int64_t begin = 0; begin < cols; begin += kBlock) {
      const std::int64_t end = std::min(cols, begin + kBlock);
      for (std::int64_t r = 0; r < n_rows; ++r)
        sweep_block(grid, rows, r, begin, end, target.data() + r * cols, rest.data() + r * cols,
                    errors.data() + r * kBlock);
      if (end == cols) break;
      linalg::gemm_subtract(n_rows, cols - end, end - begin, errors.data(), kBlock,
                            hessian_->factor.data() + begin * cols + end, cols, rest.data() + end, cols);
    }
    return rows;
  }

  // row: by column.
  void choose(const Grid& grid, AffineRows& rows, std::int64_t r, std::int64_t group, const float* row) const {
    if (params_.granularity == Granularity::kTensor) return;
    const std::int64_t begin = group * rows.width, n = rows.group_end(group) - begin;
    rows.at(r, group) =
        choose_scale(params_, grid.rule, row + begin, grid.weighted ? diagonal_.data() + begin : nullptr, n);
  }

  // Rounds the columns of a block one after the other; the error of each is spread to the later ones of the block. row:
  // by place, rounded up to the sweep, compensated behind it.
  void sweep_block(const Grid& grid, AffineRows& rows, std::int64_t r, std::int64_t begin, std::int64_t end,
                   const float* target, float* row, float* errors) const {
    const auto back = static_cast<float>(job_.options.pull_back);
    for (std::int64_t place = begin; place < end; ++place) {
      const std::int64_t at = column(place), group = at / rows.width;
      if (hessian_->order.empty() && at % rows.width == 0) choose(grid, rows, r, group, row);
      const ScaleZero& scale = rows.at(r, group);
      if (back > 0) row[place] -= back * (row[place] - target[at]);
      const int code = encoding::nearest_code(params_, row[place], scale);
      rows.codes[static_cast<std::size_t>(r * rows.cols + at)] = static_cast<std::int16_t>(code);
      const float* factor = hessian_->factor.data() + place * rows.cols;
      const float error = (row[place] - encoding::decode_code(code, scale)) / factor[place];
      errors[place - begin] = error;
      for (std::int64_t next = place + 1; next < end; ++next) row[next] -= error * factor[next];
    }
  }

  // Other grids, then passes over scales and codes. Of each row what has the least error stays: on the inputs that were
  // held out as far as there are any.
  void improve(AffineRows& rows, const std::vector<float>& target) const {
    const std::span<const float> gram = job_.statistics.gram;
    const std::span<const float> judge = job_.statistics.held_out.empty() ? gram : job_.statistics.held_out;
    const auto errors = [&](const AffineRows& of) { return row_errors(of.n, of.cols, of.values(), target, judge); };
    std::vector<double> least = errors(rows);
    const auto keep_better = [&](const AffineRows& other, AffineRows& best) {
      const std::vector<double> now = errors(other);
      for (std::int64_t r = 0; r < other.n; ++r) {
        if (!(now[static_cast<std::size_t>(r)] < least[static_cast<std::size_t>(r)])) continue;
        least[static_cast<std::size_t>(r)] = now[static_cast<std::size_t>(r)];
        best.copy_row(r, other);
      }
    };
    for (const bool weighted : {false, true}) {
      if (params_.granularity == Granularity::kTensor) break;
      keep_better(sweep(target, rows.n, {RangeRule::kMse, weighted}), rows);
    }
    AffineRows moving = rows;
    std::vector<float> values = rows.values(), gradient = gradient_of(rows.n, rows.cols, values, target, gram);
    for (int pass = 0; pass < job_.options.effort; ++pass) {
      descent_.pass(moving, values, gradient);
      keep_better(moving, rows);
    }
    keep_better(nearest(target, rows.n), rows);
  }

  // Without a sweep: a guard for what no feedback serves.
  AffineRows nearest(const std::vector<float>& target, std::int64_t n_rows) const {
    AffineRows rows(params_, n_rows, job_.shape.cols());
    std::fill(rows.scales.begin(), rows.scales.end(), whole_);
    for (std::int64_t r = 0; r < n_rows; ++r) {
      const float* row = target.data() + r * rows.cols;
      for (std::int64_t g = 0; g < rows.groups; ++g) choose({job_.options.range, false}, rows, r, g, row);
      for (std::int64_t c = 0; c < rows.cols; ++c)
        rows.codes[static_cast<std::size_t>(r * rows.cols + c)] =
            static_cast<std::int16_t>(encoding::nearest_code(params_, row[c], rows.at(r, c / rows.width)));
    }
    return rows;
  }

  Job job_;
  AffineParams params_;
  std::optional<Hessian> hessian_;
  Target corrected_;
  std::vector<float> diagonal_;
  AffineDescent descent_;
  ScaleZero whole_;
};

}  // namespace

std::unique_ptr<Quantizer> make_affine(const Job& job) { return std::make_unique<Affine>(job); }

}  // namespace nibble::method::gptq
