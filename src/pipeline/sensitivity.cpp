#include "pipeline/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>

#include "base/error.h"
#include "calib/block_walk.h"
#include "model/block_model.h"
#include "pipeline/divergence.h"
#include "pipeline/slot_solver.h"
#include "pipeline/weight_error.h"

namespace nibble::pipeline {

namespace {

using calib::BlockWalk;
using calib::Stage;
using model::BlockModel;
using model::ModelSource;
using model::Role;

constexpr std::int64_t kRows = 256;  // of a matrix, that tell what its candidates cost in proportion to each other
constexpr int kWholeModel = -1;      // instead of a layer: from the embedding on
constexpr double kAnchorBits = 3.4;  // bits per weight, about, of the candidate whose divergence is measured

// The candidate nearest to so many bits per weight of those that cost anything; none: the number of candidates.
std::size_t anchor_of(const std::vector<TypeCandidate>& candidates, const Shape& shape) {
  const auto off = [&](const TypeCandidate& candidate) {
    const double bits = 8.0 * static_cast<double>(candidate.bytes) / static_cast<double>(shape.elements());
    return candidate.method != nullptr ? std::fabs(bits - kAnchorBits) : std::numeric_limits<double>::infinity();
  };
  const auto nearest = std::ranges::min_element(candidates, {}, off);
  return std::isfinite(off(*nearest)) ? static_cast<std::size_t>(nearest - candidates.begin()) : candidates.size();
}

class SensitivityPass {
 public:
  SensitivityPass(ExecContext& context, const Conversion& conversion, const calib::TokenChunks& calibration,
                  const calib::TokenChunks& judge, const SensitivityOptions& options, std::vector<OpenTensor>& tensors)
      : context_(context),
        silent_context_{context.pool, context.cancel, silent_},
        conversion_(conversion),
        options_(options),
        tensors_(tensors),
        source_(conversion.model->exchangeable()),
        walk_(context, source_, nullptr, calibration, {options.method.isa, 8, options.memory_limit}),
        judge_(context, walk_.model(), judge, options.memory_limit) {
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      const SourceTensor& tensor = conversion.tensors[tensors[t].index];
      if (tensor.slot != SourceTensor::kNoSlot && tensor.shares.empty()) open_of_slot_[tensor.slot] = t;
    }
  }

  void run() {
    ProgressTask progress(context_.progress, "sensitivity", tensors_.size(), "tensors");
    progress_ = &progress;
    for (int layer = 0; layer < walk_.spec().n_layers(); ++layer) {
      const std::vector<Stage> stages = walk_.stages(context_, layer);
      for (std::size_t i = 0; i < stages.size(); ++i) {
        measure_stage(stages[i]);
        if (i + 1 < stages.size() && stages[i + 1].half == stages[i].half) continue;
        judge_.pass(context_, walk_.model(), layer, stages[i].half);
        walk_.pass(context_, layer, stages[i].half);
      }
    }
    measure_stage(walk_.head_stage());
    measure_rest();
  }

 private:
  void measure_stage(const Stage& stage) {
    std::optional<StageMoments> moments;
    for (const Role role : stage.roles) {
      const std::size_t slot = find_slot(walk_.spec(), role, stage.layer);
      const auto open = slot == kNoSlot ? open_of_slot_.end() : open_of_slot_.find(slot);
      if (open == open_of_slot_.end()) continue;
      if (!moments) moments = collect_moments(context_, walk_, stage, true, false);
      measure(tensors_[open->second], slot, stage, *moments);
      progress_->add(1);
    }
  }

  void measure(OpenTensor& tensor, std::size_t slot, const Stage& stage, const StageMoments& moments) {
    const SlotSolver solver{context_, *source_, options_.method};
    const std::size_t anchor = anchor_of(tensor.candidates, walk_.spec().weights[slot].shape);
    for (TypeCandidate& candidate : tensor.candidates) {
      context_.check_cancelled();
      if (candidate.method == nullptr) continue;
      const SlotTarget to = {candidate.type, candidate.method, nullptr};
      candidate.error = solver.relative_error(slot, stage, moments, to, kRows);
    }
    if (anchor == tensor.candidates.size()) return;
    SlotOutcome outcome;
    const TypeCandidate& chosen = tensor.candidates[anchor];
    Tensor solved = solver.solve(slot, stage, moments, {chosen.type, chosen.method, nullptr}, outcome);
    set_losses(tensor, anchor, divergence_with(slot, std::move(solved), stage.layer, stage.half));
  }

  // All in proportion to the error.
  static void set_losses(OpenTensor& tensor, std::size_t anchor, double divergence) {
    const double base = tensor.candidates[anchor].error;
    for (TypeCandidate& candidate : tensor.candidates)
      candidate.loss = base > 0 ? divergence * candidate.error / base : candidate.error;
    tensor.measured = true;
  }

  double divergence_with(std::size_t slot, Tensor solved, int layer, BlockModel::Half half) {
    source_->exchange(slot, std::move(solved));
    double loss = 0;
    if (layer >= 0) {
      walk_.reload(context_, layer);
      loss = judge_.divergence(context_, walk_.model(), layer, half);
    } else {
      const BlockModel other(silent_context_, source_, options_.method.isa);
      loss = judge_.divergence_of(context_, other);
    }
    source_->restore(slot);
    if (layer >= 0) walk_.reload(context_, layer);
    return loss;
  }

  // Weights that the walk does not come by: an embedding that is not the head, and what is part of another tensor. They
  // are quantized without statistics.
  void measure_rest() {
    for (const auto& [slot, open] : open_of_slot_) {
      OpenTensor& tensor = tensors_[open];
      if (tensor.measured) continue;
      weight_errors(context_, conversion_.tensors[tensor.index], options_.method, tensor);
      const std::size_t anchor = anchor_of(tensor.candidates, walk_.spec().weights[slot].shape);
      if (anchor == tensor.candidates.size()) continue;
      const TypeCandidate& candidate = tensor.candidates[anchor];
      const SlotSolver solver{context_, *source_, options_.method};
      Tensor solved = solver.solve_alone(slot, {candidate.type, candidate.method, nullptr});
      set_losses(tensor, anchor, divergence_with(slot, std::move(solved), kWholeModel, BlockModel::Half::kBoth));
      progress_->add(1);
    }
    estimate_rest();
  }

  // As much for an error as the median of the others.
  void estimate_rest() {
    std::vector<double> factors;
    for (const OpenTensor& tensor : tensors_) {
      const TypeCandidate& first = tensor.candidates.front();
      if (tensor.measured && first.error > 0) factors.push_back(first.loss / first.error);
    }
    std::ranges::sort(factors);
    const double median = factors.empty() ? 1 : factors[factors.size() / 2];
    for (OpenTensor& tensor : tensors_) {
      if (tensor.measured) continue;
      weight_errors(context_, conversion_.tensors[tensor.index], options_.method, tensor);
      for (TypeCandidate& candidate : tensor.candidates) candidate.loss = candidate.error * median;
      progress_->add(1);
    }
  }

  ExecContext& context_;
  NullProgress silent_;
  ExecContext silent_context_;
  const Conversion& conversion_;
  const SensitivityOptions& options_;
  std::vector<OpenTensor>& tensors_;
  std::shared_ptr<ModelSource> source_;
  BlockWalk walk_;
  DivergenceWalk judge_;
  std::map<std::size_t, std::size_t> open_of_slot_;
  ProgressTask* progress_ = nullptr;
};

// What a relative error of a tensor costs where nothing was measured: what it costs models/books-7m, by group, a
// block's share falling with the number of blocks; the first and the last carry several times as much as those between.
double usual_factor(TensorGroup group, int layer, int n_layers) {
  static constexpr std::pair<TensorGroup, double> kFactors[] = {
      {TensorGroup::kHead, 9.0},     {TensorGroup::kTokenEmbedding, 3.0}, {TensorGroup::kAttnQ, 0.04},
      {TensorGroup::kAttnK, 0.07},   {TensorGroup::kAttnV, 0.05},         {TensorGroup::kAttnOutput, 0.11},
      {TensorGroup::kFfnGate, 0.17}, {TensorGroup::kFfnUp, 0.08},         {TensorGroup::kFfnDown, 0.29},
  };
  const auto* found = std::ranges::find(kFactors, group, &std::pair<TensorGroup, double>::first);
  const double factor = found != std::end(kFactors) ? found->second : 0.1;
  if (layer < 0 || n_layers < 1) return factor;
  const bool outer = layer == 0 || layer + 1 == n_layers;
  return factor * (outer ? 3.0 : 1.0) / n_layers;
}

}  // namespace

void measure_losses(ExecContext& context, const Conversion& conversion, const calib::TokenChunks& calibration,
                    const calib::TokenChunks& judge, const SensitivityOptions& options,
                    std::vector<OpenTensor>& tensors) {
  SensitivityPass(context, conversion, calibration, judge, options, tensors).run();
}

void estimate_losses(ExecContext& context, const Conversion& conversion, const SensitivityOptions& options,
                     std::vector<OpenTensor>& tensors) {
  ProgressTask progress(context.progress, "sensitivity", tensors.size(), "tensors");
  const bool tied = std::ranges::none_of(
      conversion.tensors, [](const SourceTensor& tensor) { return tensor.tensor.name == "output.weight"; });
  for (OpenTensor& tensor : tensors) {
    const SourceTensor& source = conversion.tensors[tensor.index];
    weight_errors(context, source, options.method, tensor);
    const double factor =
        usual_factor(group_of(source.tensor.name, tied), layer_of(source.tensor.name), conversion.facts.n_layers);
    for (TypeCandidate& candidate : tensor.candidates) candidate.loss = factor * candidate.error;
    progress.add(1);
  }
}

}  // namespace nibble::pipeline
