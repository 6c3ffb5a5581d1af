#include "pipeline/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>
#include <optional>

#include "base/error.h"
#include "calib/block_walk.h"
#include "encoding/encoding.h"
#include "method/layer.h"
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

constexpr std::int64_t kRowsPerTask = 64;
constexpr double kAnchorBits[] = {2.6, 4.5};  // bits per weight of the candidates whose divergence is measured

// Σ over rows of d gram dᵀ, d the difference of the weights from `tensor`, or the weights themselves where that is null;
// of a stack the matrices weighted with the tokens they saw.
double output_square(ExecContext& context, const ModelSource& source, std::size_t slot, const StageMoments& moments,
                     const Tensor* tensor) {
  const Shape& shape = source.spec().weights[slot].shape;
  const std::int64_t cols = shape.cols(), matrices = moments.train.n_matrices(), rows = shape.rows() / matrices;
  const std::int64_t tasks = (rows + kRowsPerTask - 1) / kRowsPerTask;
  double sum = 0;
  for (std::int64_t m = 0; m < matrices; ++m) {
    const bool held_out = moments.held_out.n_matrices() > m && moments.held_out.count(m) > 0;
    const calib::InputMoments& judge = held_out ? moments.held_out : moments.train;
    if (judge.count(m) == 0) continue;
    std::vector<double> sums(static_cast<std::size_t>(tasks));
    context.pool.parallel_dynamic(tasks, [&](std::int64_t task) {
      const std::int64_t begin = task * kRowsPerTask, n = std::min(kRowsPerTask, rows - begin);
      std::vector<float> weights(static_cast<std::size_t>(n * cols)), other(weights.size());
      source.read_rows(slot, m * rows + begin, m * rows + begin + n, weights.data());
      if (tensor != nullptr)
        encoding::decode_rows(tensor->view(), m * rows + begin, m * rows + begin + n, other.data());
      for (const double error : method::row_errors(n, cols, weights, other, judge.gram(m)))
        sums[static_cast<std::size_t>(task)] += error;
    });
    for (const double each : sums) sum += each * static_cast<double>(judge.count(m));
  }
  return sum;
}

// The losses of all candidates from those of the anchors: in proportion to the error, the factor between two anchors
// interpolated over the logarithm of the error.
void follow_anchors(std::vector<TypeCandidate>& candidates, const std::vector<std::size_t>& anchors) {
  struct Point {
    double log_error, log_factor;
  };
  std::vector<Point> points;
  for (const std::size_t a : anchors) {
    const TypeCandidate& anchor = candidates[a];
    if (anchor.error > 0 && anchor.loss > 0)
      points.push_back({std::log(anchor.error), std::log(anchor.loss / anchor.error)});
  }
  if (points.empty()) return;
  std::ranges::sort(points, {}, &Point::log_error);
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    TypeCandidate& candidate = candidates[i];
    if (std::ranges::find(anchors, i) != anchors.end() || candidate.error <= 0) continue;
    const double at = std::log(candidate.error);
    double log_factor = at <= points.front().log_error ? points.front().log_factor : points.back().log_factor;
    for (std::size_t p = 1; p < points.size(); ++p) {
      const Point &a = points[p - 1], &b = points[p];
      if (at <= a.log_error || at >= b.log_error) continue;
      log_factor = a.log_factor + (b.log_factor - a.log_factor) * (at - a.log_error) / (b.log_error - a.log_error);
    }
    candidate.loss = candidate.error * std::exp(log_factor);
  }
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
        walk_(silent_context_, source_, nullptr, calibration, {options.method.isa, 8, options.memory_limit}),
        judge_(silent_context_, walk_.model(), judge, options.memory_limit) {
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
    for (OpenTensor& tensor : tensors_) {
      if (!tensor.measured) measure_alone(tensor);
    }
    estimate_rest();
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

  std::vector<std::size_t> anchors_of(const std::vector<TypeCandidate>& candidates, const Shape& shape) const {
    std::vector<std::size_t> anchors;
    if (std::getenv("NIBBLE_ALL_ANCHORS") != nullptr) {
      for (std::size_t i = 0; i < candidates.size(); ++i)
        if (candidates[i].method != nullptr) anchors.push_back(i);
      return anchors;
    }
    for (const double bits : kAnchorBits) {
      double nearest = std::numeric_limits<double>::infinity();
      std::size_t anchor = 0;
      for (std::size_t i = 0; i < candidates.size(); ++i) {
        if (candidates[i].method == nullptr) continue;
        const double off =
            std::fabs(8.0 * static_cast<double>(candidates[i].bytes) / static_cast<double>(shape.elements()) - bits);
        if (off < nearest) {
          nearest = off;
          anchor = i;
        }
      }
      if (std::isfinite(nearest) && std::ranges::find(anchors, anchor) == anchors.end()) anchors.push_back(anchor);
    }
    return anchors;
  }

  void measure(OpenTensor& tensor, std::size_t slot, const Stage& stage, const StageMoments& moments) {
    const double whole = output_square(context_, *source_, slot, moments, nullptr);
    const SlotSolver solver{context_, *source_, options_.method};
    const std::vector<std::size_t> anchors = anchors_of(tensor.candidates, walk_.spec().weights[slot].shape);
    for (std::size_t i = 0; i < tensor.candidates.size(); ++i) {
      context_.check_cancelled();
      TypeCandidate& candidate = tensor.candidates[i];
      if (candidate.method == nullptr) continue;
      SlotOutcome outcome;
      Tensor solved = solver.solve(slot, stage, moments, {candidate.type, candidate.method, nullptr}, outcome);
      candidate.error = whole > 0 ? output_square(context_, *source_, slot, moments, &solved) / whole : 0;
      if (std::ranges::find(anchors, i) != anchors.end())
        candidate.loss = divergence_with(slot, std::move(solved), stage.layer, stage.half);
    }
    follow_anchors(tensor.candidates, anchors);
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

  // A weight that the walk does not come by, an embedding that is not the head: without statistics.
  void measure_alone(OpenTensor& tensor) {
    progress_->add(1);
    weight_errors(context_, conversion_.tensors[tensor.index], options_.method, tensor);
  }

  // Tensors without a measured loss: as much for an error as the median of the others.
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
      for (TypeCandidate& candidate : tensor.candidates) candidate.loss = candidate.error * median;
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

}  // namespace

void measure_losses(ExecContext& context, const Conversion& conversion, const calib::TokenChunks& calibration,
                    const calib::TokenChunks& judge, const SensitivityOptions& options,
                    std::vector<OpenTensor>& tensors) {
  SensitivityPass(context, conversion, calibration, judge, options, tensors).run();
}

void estimate_losses(ExecContext& context, const Conversion& conversion, const SensitivityOptions& options,
                     std::vector<OpenTensor>& tensors) {
  ProgressTask progress(context.progress, "sensitivity", tensors.size(), "tensors");
  for (OpenTensor& tensor : tensors) {
    weight_errors(context, conversion.tensors[tensor.index], options.method, tensor);
    for (TypeCandidate& candidate : tensor.candidates) candidate.loss = candidate.error;
    progress.add(1);
  }
}

}  // namespace nibble::pipeline
