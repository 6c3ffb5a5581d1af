#include "pipeline/slot_solver.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "base/error.h"
#include "encoding/encoding.h"
#include "method/kept_columns.h"
#include "method/layer.h"
#include "method/quantize_tensor.h"

namespace nibble::pipeline {

namespace {

using calib::Share;
using calib::Stage;
using model::ModelSource;
using model::Role;

constexpr std::int64_t kRowsPerTask = 64;  // compared at once by one thread
constexpr std::int64_t kFewTokens = 64;    // an expert that saw fewer is told about

// Rows of one matrix of a stack.
class MatrixRows final : public method::RowSource {
 public:
  MatrixRows(const ModelSource& source, std::size_t slot, std::int64_t first, const Shape& shape)
      : source_(source), slot_(slot), first_(first), shape_(shape) {}
  std::int64_t rows() const override { return shape_.rows(); }
  std::int64_t cols() const override { return shape_.cols(); }
  void read(std::int64_t row_begin, std::int64_t row_end, float* out) const override {
    source_.read_rows(slot_, first_ + row_begin, first_ + row_end, out);
  }

 private:
  const ModelSource& source_;
  std::size_t slot_;
  std::int64_t first_;
  Shape shape_;
};

// Errors of queries and keys meet in a product: the size of each says little, and AWQ's reference leaves them out.
bool meets_in_scores(Role role) { return role == Role::kAttnQ || role == Role::kAttnK || role == Role::kAttnQkv; }

// A range by what inputs make of it needs inputs.
void without_inputs(method::Job& job) {
  if (job.options.range == method::RangeRule::kOutput && job.statistics.gram.empty())
    job.options.range = method::RangeRule::kMse;
}

}  // namespace

StageMoments collect_moments(ExecContext& context, calib::BlockWalk& walk, const Stage& stage, bool gram, bool cross) {
  StageMoments moments;
  moments.train = walk.collect(context, stage, {gram, gram && cross, true}, Share::kTrain);
  if (gram) moments.held_out = walk.collect(context, stage, {true, cross, false}, Share::kHeldOut);
  return moments;
}

method::Statistics statistics_of(const StageMoments& moments, std::int64_t matrix) {
  method::Statistics statistics;
  statistics.importance = moments.train.mean_square(matrix);
  statistics.gram = moments.train.gram(matrix);
  statistics.cross = moments.train.cross(matrix);
  if (matrix < moments.held_out.n_matrices() && moments.held_out.count(matrix) > 0) {
    statistics.held_out = moments.held_out.gram(matrix);
    statistics.held_out_cross = moments.held_out.cross(matrix);
  }
  return statistics;
}

std::vector<float> numbers_of(const model::ModelSource& source, std::size_t slot) {
  const Shape& shape = source.spec().weights[slot].shape;
  std::vector<float> out(static_cast<std::size_t>(shape.elements()));
  source.read_rows(slot, 0, shape.rows(), out.data());
  return out;
}

std::size_t find_slot(const model::ModelSpec& spec, Role role, int layer) {
  const model::WeightSlot* slot = spec.find(role, layer);
  if (slot == nullptr && role == Role::kOutput) slot = spec.find(Role::kTokenEmbedding, -1);
  return slot == nullptr ? kNoSlot : static_cast<std::size_t>(slot - spec.weights.data());
}

method::Job SlotSolver::job_of(std::size_t slot, const Stage& stage, const StageMoments& moments, std::int64_t matrix,
                               const SlotTarget& to, const method::Method*& method) const {
  const model::WeightSlot& weight = source.spec().weights[slot];
  const bool alone = stage.n_matrices > 1 && moments.train.count(matrix) < kFewTokens;
  method::Job job;
  job.tensor = weight.hf_name;
  job.target = to.target;
  job.shape = weight.shape.rank() == 3 ? Shape{weight.shape[1], weight.shape[2]} : weight.shape;
  job.options = options;
  if (options.range == method::RangeRule::kOutput && meets_in_scores(weight.role))
    job.options.range = method::RangeRule::kMinMax;
  if (!alone) job.statistics = statistics_of(moments, matrix);
  without_inputs(job);
  method = alone ? &method::default_for(*to.target) : to.method;
  return job;
}

Tensor SlotSolver::solve(std::size_t slot, const Stage& stage, const StageMoments& moments, const SlotTarget& to,
                         SlotOutcome& outcome, std::span<const std::int32_t> kept) const {
  const auto start = std::chrono::steady_clock::now();
  const model::WeightSlot& weight = source.spec().weights[slot];
  outcome.tokens = moments.train.count(0);
  Tensor tensor = encoding::allocate(*to.target, weight.shape);
  const auto parts = encoding::plan_parts(*to.target, weight.shape);
  if (stage.n_matrices > 1 && !std::ranges::all_of(parts, &encoding::PartPlan::by_rows))
    fail(ErrorCode::kUnsupported, "tensor '{}': experts that share parts of {} are not quantized one by one",
         weight.hf_name, to.target->name);
  std::int64_t starved = 0;
  for (std::int64_t m = 0; m < stage.n_matrices; ++m) {
    outcome.tokens = std::min(outcome.tokens, moments.train.count(m));
    starved += moments.train.count(m) < kFewTokens ? 1 : 0;
    const method::Method* method = nullptr;
    const method::Job job = job_of(slot, stage, moments, m, to, method);
    solve_matrix(*method, job, slot, m, kept, tensor, outcome.errors);
  }
  if (starved > 0 && stage.n_matrices > 1)
    outcome.note = format_text("{} of {} experts saw fewer than {} tokens and were quantized without statistics",
                               starved, stage.n_matrices, kFewTokens);
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return tensor;
}

double SlotSolver::relative_error(std::size_t slot, const Stage& stage, const StageMoments& moments,
                                  const SlotTarget& to, std::int64_t most_rows) const {
  double changed = 0, whole = 0;
  for (std::int64_t m = 0; m < stage.n_matrices; ++m) {
    const bool held_out = m < moments.held_out.n_matrices() && moments.held_out.count(m) > 0;
    const calib::InputMoments& judge = held_out ? moments.held_out : moments.train;
    if (judge.count(m) == 0) continue;
    const method::Method* method = nullptr;
    method::Job job = job_of(slot, stage, moments, m, to, method);
    const std::int64_t rows = job.shape.rows(), cols = job.shape.cols(), n = std::min(rows, most_rows);
    std::vector<float> weights(static_cast<std::size_t>(n * cols));
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t row = m * rows + i * rows / n;
      source.read_rows(slot, row, row + 1, weights.data() + i * cols);
    }
    job.shape = {n, cols};
    const auto tokens = static_cast<double>(judge.count(m));
    changed += tokens * method::layer_error(context, *method, job, weights, judge.gram(m));
    const std::vector<float> zeros(weights.size());
    for (const double each : method::row_errors(n, cols, weights, zeros, judge.gram(m))) whole += tokens * each;
  }
  return whole > 0 ? changed / whole : 0;
}

Tensor SlotSolver::solve_by_importance(std::size_t slot, const SlotTarget& to,
                                       const std::vector<std::vector<float>>& importance) const {
  const model::WeightSlot& weight = source.spec().weights[slot];
  Tensor tensor = encoding::allocate(*to.target, weight.shape);
  const auto matrices = std::max<std::int64_t>(1, std::ssize(importance));
  method::Job job;
  job.tensor = weight.hf_name;
  job.target = to.target;
  job.shape = {weight.shape.rows() / matrices, weight.shape.cols()};
  job.options = options;
  without_inputs(job);
  for (std::int64_t m = 0; m < matrices; ++m) {
    if (!importance.empty()) job.statistics.importance = importance[static_cast<std::size_t>(m)];
    const std::int64_t first = m * job.shape.rows();
    method::quantize_into(context, *to.method, job, MatrixRows(source, slot, first, job.shape), first, tensor);
  }
  return tensor;
}

Tensor SlotSolver::solve_alone(std::size_t slot, const SlotTarget& to) const {
  return solve_by_importance(slot, to, {});
}

void SlotSolver::solve_matrix(const method::Method& method, const method::Job& job, std::size_t slot,
                              std::int64_t matrix, std::span<const std::int32_t> kept, Tensor& tensor,
                              ErrorSums& errors) const {
  const std::int64_t rows = job.shape.rows(), cols = job.shape.cols(), first = matrix * rows;
  const MatrixRows weights(source, slot, first, job.shape);
  if (kept.empty()) {
    method::quantize_into(context, method, job, weights, first, tensor);
  } else {
    method::quantize_keeping(context, method, job, weights, kept, tensor);
  }
  const std::int64_t tasks = (rows + kRowsPerTask - 1) / kRowsPerTask;
  std::vector<ErrorSums> sums(static_cast<std::size_t>(tasks));
  context.pool.parallel_dynamic(tasks, [&](std::int64_t task) {
    const std::int64_t begin = task * kRowsPerTask, n = std::min(kRowsPerTask, rows - begin);
    std::vector<float> values(static_cast<std::size_t>(n * cols)), decoded(values.size());
    weights.read(begin, begin + n, values.data());
    encoding::decode_rows(tensor.view(), first + begin, first + begin + n, decoded.data());
    sums[static_cast<std::size_t>(task)] = sum_errors(values.data(), decoded.data(), n * cols);
  });
  for (const ErrorSums& each : sums) errors.add(each);
}

}  // namespace nibble::pipeline
