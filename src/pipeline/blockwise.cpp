#include "pipeline/blockwise.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "calib/block_walk.h"
#include "encoding/activation.h"
#include "method/kept_columns.h"
#include "pipeline/block_to_tune.h"
#include "pipeline/slot_solver.h"
#include "pipeline/transforms.h"

namespace nibble::pipeline {

namespace {

using calib::BlockWalk;
using calib::Stage;
using model::ModelSource;
using model::Role;

constexpr std::int64_t kObservedTokens = 8192;  // that fixed scales of inputs and of the cache are made of

// The first keys and values that a block puts into its cache.
class CacheSample final : public model::ForwardObserver {
 public:
  void cache_input(ExecContext& /*context*/, int /*layer*/, const float* k, const float* v, std::int64_t n,
                   std::int64_t width) override {
    if (seen_ >= kObservedTokens) return;
    keys.insert(keys.end(), k, k + n * width);
    values.insert(values.end(), v, v + n * width);
    seen_ += n;
  }
  std::vector<float> keys, values;

 private:
  std::int64_t seen_ = 0;
};

class Blockwise {
 public:
  Blockwise(ExecContext& context, std::shared_ptr<ModelSource> source, const calib::TokenChunks& chunks,
            const std::vector<SlotTarget>& targets, const BlockwiseOptions& options)
      : context_(context),
        source_(std::move(source)),
        targets_(targets),
        options_(options),
        outcomes_(targets.size()),
        walk_(context, source_, options.cross || options.tuning ? source_->exchangeable() : nullptr, chunks,
              {options.method.isa, 8, options.memory_limit}) {}

  void run(const std::function<void(int)>& block_done) {
    const int n_layers = walk_.spec().n_layers();
    ProgressTask progress(context_.progress, "blocks", static_cast<std::uint64_t>(n_layers), "blocks");
    for (int layer = 0; layer < n_layers; ++layer) {
      context_.check_cancelled();
      if (hold_made_weights(context_, *source_, layer)) walk_.reload(context_, layer);
      run_block(layer);
      block_done(layer);
      release_kept_weights(layer);
      progress.add(1);
    }
    run_stage(walk_.head_stage(), nullptr);
    block_done(-1);
  }
  std::vector<SlotOutcome> take_outcomes() { return std::move(outcomes_); }
  PhaseSeconds spent() const {
    PhaseSeconds spent = spent_;
    spent.forward = walk_.forward_seconds();
    spent.statistics = walk_.statistics_seconds();
    return spent;
  }

 private:
  // Those that are quantized are the caller's to restore.
  void release_kept_weights(int layer) {
    const model::ModelSpec& spec = source_->spec();
    for (std::size_t slot = 0; slot < spec.weights.size(); ++slot) {
      if (spec.weights[slot].layer == layer && targets_[slot].target == nullptr) source_->restore(slot);
    }
  }

  void run_block(int layer) {
    for (const transform::Chosen& chosen : options_.transforms) {
      transform::BlockScope scope{context_, walk_, *source_, targets_, options_.method, layer, chosen.settings};
      const auto start = std::chrono::steady_clock::now();
      const double walked = walk_.forward_seconds() + walk_.statistics_seconds();
      chosen.transform->apply(scope);
      spent_.transforms += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() -
                           (walk_.forward_seconds() + walk_.statistics_seconds() - walked);
    }
    const std::vector<Stage> stages = walk_.stages(context_, layer);
    std::optional<BlockToTune> to_tune;
    if (options_.tuning) to_tune.emplace(context_, *source_, walk_, targets_, options_, layer);
    CacheSample sample;
    for (std::size_t i = 0; i < stages.size(); ++i) {
      if (run_stage(stages[i], to_tune ? &*to_tune : nullptr)) {
        if (to_tune) absorb(*to_tune, std::span(stages).subspan(i + 1));
        walk_.reload(context_, layer);
      }
      if (i + 1 == stages.size() || stages[i + 1].half != stages[i].half)
        walk_.pass(context_, layer, stages[i].half, options_.cache != nullptr ? &sample : nullptr);
    }
    if (options_.cache != nullptr) {
      const auto scale = [&](const std::vector<float>& numbers) {
        return calib::observe_cache(*options_.cache, *options_.cache_observer, numbers);
      };
      source_->give_cache_scales(layer, *options_.cache, scale(sample.keys), scale(sample.values));
    }
    if (!to_tune) return;
    const auto start = std::chrono::steady_clock::now();
    to_tune->tune(outcomes_);
    spent_.tuning += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  std::vector<std::size_t> slots_of(const Stage& stage) const {
    std::vector<std::size_t> slots;
    for (const Role role : stage.roles) {
      const std::size_t slot = find_slot(walk_.spec(), role, stage.layer);
      if (slot != kNoSlot && targets_[slot].target != nullptr) slots.push_back(slot);
    }
    return slots;
  }

  void absorb(BlockToTune& block, std::span<const Stage> later) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::size_t> slots;
    for (const Stage& stage : later) std::ranges::copy(slots_of(stage), std::back_inserter(slots));
    block.absorb(slots);
    spent_.tuning += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  // Was anything exchanged?
  bool run_stage(const Stage& stage, BlockToTune* to_tune) {
    const std::vector<std::size_t> slots = slots_of(stage);
    if (slots.empty()) return false;
    const bool gram = std::ranges::any_of(
        slots, [&](std::size_t slot) { return method::asks_for_gram(*targets_[slot].method, options_.method); });
    // What was trained since is to give what it gives with these inputs, not what the original gave.
    const bool trained =
        to_tune != nullptr && std::ranges::any_of(slots, [&](std::size_t slot) { return to_tune->absorbed(slot); });
    const StageMoments moments = collect_moments(context_, walk_, stage, gram, options_.cross && !trained);
    const SlotSolver solver{context_, *source_, options_.method};
    std::vector<float> sample;
    for (const std::size_t slot : slots) {
      const std::vector<std::int32_t> kept = columns_to_keep(stage, slot, sample);
      Tensor tensor = solver.solve(slot, stage, moments, targets_[slot], outcomes_[slot], kept);
      InputRounding inputs = rounding_of(stage, targets_[slot].inputs, sample);
      if (!kept.empty()) inputs.kept = {tensor.view().part(PartRole::kOutlierColumns).bytes};
      tensor.set_inputs(inputs);
      source_->exchange(slot, std::move(tensor));
      if (to_tune != nullptr) to_tune->note_inputs(slot, moments.train);
    }
    for (const std::size_t slot : slots) spent_.solving += outcomes_[slot].seconds;
    return true;
  }

  // `sample`: inputs of the stage, once they are looked at.
  InputRounding rounding_of(const Stage& stage, const encoding::ActivationInfo* inputs, std::vector<float>& sample) {
    if (inputs == nullptr || !inputs->is_static()) return {inputs};
    if (stage.n_matrices > 1)
      fail(ErrorCode::kUnsupported, "experts have inputs of their own: they take no scale that is fixed for all");
    look_at(stage, sample);
    return calib::observe(*inputs, *options_.observer, sample);
  }

  // Those of a target that keeps some in 16 bits: where the largest inputs are.
  std::vector<std::int32_t> columns_to_keep(const Stage& stage, std::size_t slot, std::vector<float>& sample) {
    const encoding::EncodingInfo& target = *targets_[slot].target;
    if (target.family != encoding::Family::kAffine || target.affine.kept == 0) return {};
    look_at(stage, sample);
    return method::largest_columns(sample, walk_.spec().weights[slot].shape.cols(), target.affine.kept);
  }

  void look_at(const Stage& stage, std::vector<float>& sample) {
    if (sample.empty()) sample = walk_.sample(context_, stage, kObservedTokens);
  }

  ExecContext& context_;
  std::shared_ptr<ModelSource> source_;
  const std::vector<SlotTarget>& targets_;
  const BlockwiseOptions& options_;
  std::vector<SlotOutcome> outcomes_;
  BlockWalk walk_;
  PhaseSeconds spent_;  // less what the walk counts
};

}  // namespace

std::vector<SlotOutcome> quantize_blockwise(ExecContext& context, const std::shared_ptr<ModelSource>& source,
                                            const calib::TokenChunks& chunks, const std::vector<SlotTarget>& targets,
                                            const BlockwiseOptions& options, const std::function<void(int)>& block_done,
                                            PhaseSeconds& spent) {
  Blockwise blockwise(context, source, chunks, targets, options);
  blockwise.run(block_done);
  spent = blockwise.spent();
  return blockwise.take_outcomes();
}

}  // namespace nibble::pipeline
