#include "pipeline/blockwise.h"

#include <algorithm>
#include <chrono>
#include <set>

#include "base/error.h"
#include "calib/block_walk.h"
#include "encoding/encoding.h"
#include "method/quantize_tensor.h"

namespace nibble::pipeline {

namespace {

using calib::BlockWalk;
using calib::InputMoments;
using calib::Share;
using calib::Stage;
using model::ModelSource;
using model::Role;

constexpr std::int64_t kRowsPerTask = 64;       // compared at once by one thread
constexpr std::int64_t kFewTokens = 64;         // an expert that saw fewer is told about
constexpr std::size_t kNone = ~std::size_t{0};  // no slot

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

// The statistics of a stage: what the method is given, and what it is judged by.
struct StageMoments {
  InputMoments train, held_out;
};

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

class Blockwise {
 public:
  Blockwise(ExecContext& context, std::shared_ptr<ModelSource> source, const calib::TokenChunks& chunks,
            const std::vector<SlotTarget>& targets, const BlockwiseOptions& options)
      : context_(context),
        source_(std::move(source)),
        targets_(targets),
        options_(options),
        outcomes_(targets.size()),
        walk_(context, source_, options.cross ? source_->exchangeable() : nullptr, chunks,
              {options.method.isa, 8, options.memory_limit}) {}

  void run(const std::function<void(int)>& block_done) {
    const int n_layers = walk_.spec().n_layers();
    ProgressTask progress(context_.progress, "blocks", static_cast<std::uint64_t>(n_layers), "blocks");
    for (int layer = 0; layer < n_layers; ++layer) {
      context_.check_cancelled();
      run_block(layer);
      block_done(layer);
      progress.add(1);
    }
    run_stage(walk_.head_stage());
    block_done(-1);
  }
  std::vector<SlotOutcome> take_outcomes() { return std::move(outcomes_); }

 private:
  void run_block(int layer) {
    for (const transform::Transform* transform : options_.transforms) {
      transform::BlockScope scope{context_, walk_, *source_, targets_, options_.method, layer};
      transform->apply(scope);
    }
    const std::vector<Stage> stages = walk_.stages(context_, layer);
    for (std::size_t i = 0; i < stages.size(); ++i) {
      if (run_stage(stages[i])) walk_.reload(context_, layer);
      if (i + 1 == stages.size() || stages[i + 1].half != stages[i].half) walk_.pass(context_, layer, stages[i].half);
    }
  }

  std::size_t slot_of(Role role, int layer) const {
    const model::ModelSpec& spec = walk_.spec();
    const model::WeightSlot* slot = spec.find(role, layer);
    if (slot == nullptr && role == Role::kOutput) slot = spec.find(Role::kTokenEmbedding, -1);
    return slot == nullptr ? kNone : static_cast<std::size_t>(slot - spec.weights.data());
  }

  // Was anything exchanged?
  bool run_stage(const Stage& stage) {
    std::vector<std::size_t> slots;
    for (const Role role : stage.roles) {
      const std::size_t slot = slot_of(role, stage.layer);
      if (slot != kNone && targets_[slot].target != nullptr) slots.push_back(slot);
    }
    if (slots.empty()) return false;
    const bool gram = std::ranges::any_of(slots, [&](std::size_t slot) { return targets_[slot].method->needs_gram; });
    StageMoments moments;
    moments.train = walk_.collect(context_, stage, {gram, gram && options_.cross, true}, Share::kTrain);
    if (gram) moments.held_out = walk_.collect(context_, stage, {true, options_.cross, false}, Share::kHeldOut);
    for (const std::size_t slot : slots) source_->exchange(slot, solve(slot, stage, moments));
    return true;
  }

  Tensor solve(std::size_t slot, const Stage& stage, const StageMoments& moments) {
    const auto start = std::chrono::steady_clock::now();
    const model::WeightSlot& weight = walk_.spec().weights[slot];
    const SlotTarget& to = targets_[slot];
    SlotOutcome& outcome = outcomes_[slot];
    outcome.tokens = moments.train.count(0);
    Tensor tensor = encoding::allocate(*to.target, weight.shape);
    const auto parts = encoding::plan_parts(*to.target, weight.shape);
    if (stage.n_matrices > 1 && !std::ranges::all_of(parts, &encoding::PartPlan::by_rows))
      fail(ErrorCode::kUnsupported, "tensor '{}': experts that share parts of {} are not quantized one by one",
           weight.hf_name, to.target->name);
    const Shape shape = weight.shape.rank() == 3 ? Shape{weight.shape[1], weight.shape[2]} : weight.shape;
    std::int64_t starved = 0;
    for (std::int64_t m = 0; m < stage.n_matrices; ++m) {
      outcome.tokens = std::min(outcome.tokens, moments.train.count(m));
      const bool few = moments.train.count(m) < kFewTokens;
      starved += few ? 1 : 0;
      method::Job job;
      job.tensor = weight.hf_name;
      job.target = to.target;
      job.shape = shape;
      job.options = options_.method;
      if (!few || stage.n_matrices == 1) job.statistics = statistics_of(moments, m);
      const method::Method& method = few && stage.n_matrices > 1 ? method::default_for(*to.target) : *to.method;
      solve_matrix(method, job, slot, m, tensor, outcome.errors);
    }
    if (starved > 0 && stage.n_matrices > 1)
      outcome.note = format_text("{} of {} experts saw fewer than {} tokens and were quantized without statistics",
                                 starved, stage.n_matrices, kFewTokens);
    outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return tensor;
  }

  void solve_matrix(const method::Method& method, const method::Job& job, std::size_t slot, std::int64_t matrix,
                    Tensor& tensor, ErrorSums& errors) {
    const std::int64_t rows = job.shape.rows(), cols = job.shape.cols(), first = matrix * rows;
    const MatrixRows source(*source_, slot, first, job.shape);
    method::quantize_into(context_, method, job, source, first, tensor);
    const std::int64_t tasks = (rows + kRowsPerTask - 1) / kRowsPerTask;
    std::vector<ErrorSums> sums(static_cast<std::size_t>(tasks));
    context_.pool.parallel_dynamic(tasks, [&](std::int64_t task) {
      const std::int64_t begin = task * kRowsPerTask, n = std::min(kRowsPerTask, rows - begin);
      std::vector<float> values(static_cast<std::size_t>(n * cols)), decoded(values.size());
      source.read(begin, begin + n, values.data());
      encoding::decode_rows(tensor.view(), first + begin, first + begin + n, decoded.data());
      sums[static_cast<std::size_t>(task)] = sum_errors(values.data(), decoded.data(), n * cols);
    });
    for (const ErrorSums& each : sums) errors.add(each);
  }

  ExecContext& context_;
  std::shared_ptr<ModelSource> source_;
  const std::vector<SlotTarget>& targets_;
  const BlockwiseOptions& options_;
  std::vector<SlotOutcome> outcomes_;
  BlockWalk walk_;
};

}  // namespace

std::vector<SlotOutcome> quantize_blockwise(ExecContext& context, const std::shared_ptr<ModelSource>& source,
                                            const calib::TokenChunks& chunks, const std::vector<SlotTarget>& targets,
                                            const BlockwiseOptions& options,
                                            const std::function<void(int)>& block_done) {
  Blockwise blockwise(context, source, chunks, targets, options);
  blockwise.run(block_done);
  return blockwise.take_outcomes();
}

}  // namespace nibble::pipeline
