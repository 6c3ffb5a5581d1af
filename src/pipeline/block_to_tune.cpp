#include "pipeline/block_to_tune.h"

#include <algorithm>

#include "base/format.h"
#include "method/quantizer.h"

namespace nibble::pipeline {

using calib::Share;
using encoding::Family;

BlockToTune::BlockToTune(ExecContext& context, model::ModelSource& source, calib::BlockWalk& walk,
                         const std::vector<SlotTarget>& targets, const BlockwiseOptions& options, int layer)
    : context_(context),
      source_(source),
      walk_(walk),
      targets_(targets),
      options_(options),
      tuning_(*options.tuning),
      layer_(layer) {
  const std::int64_t tokens = walk.n_tokens(Share::kTrain) + walk.n_tokens(Share::kHeldOut);
  const std::int64_t n = tokens * walk.spec().hidden;
  before_ = SpillBuffer(static_cast<std::uint64_t>(n) * sizeof(float), options.memory_limit);
  std::copy_n(walk.states(), n, before_.floats());
  if (tuning_.absorb_iterations > 0) {
    behind_ = SpillBuffer(static_cast<std::uint64_t>(n) * sizeof(float), options.memory_limit);
    walk.run_original(context, layer, behind_.floats());
  }
  for (std::size_t slot = 0; slot < targets.size(); ++slot) {
    if (walk.spec().weights[slot].layer != layer || targets[slot].target == nullptr) continue;
    if (!tune::RoundedTensor::supports(*targets[slot].target)) continue;
    originals_.push_back({slot, numbers_of(source, slot)});
  }
}

tune::BlockStates BlockToTune::states() const {
  const std::int64_t train = walk_.n_tokens(Share::kTrain) * walk_.spec().hidden;
  const float* behind = tuning_.absorb_iterations > 0 ? behind_.floats() : walk_.original_states();
  tune::BlockStates states;
  states.length = walk_.sequence_length();
  states.n_train = walk_.n_sequences(Share::kTrain);
  states.n_held_out = walk_.n_sequences(Share::kHeldOut);
  states.inputs = before_.floats();
  states.held_out_inputs = before_.floats() + train;
  states.targets = behind;
  states.held_out_targets = behind + train;
  return states;
}

bool BlockToTune::has_blocks(std::size_t slot) const { return targets_[slot].target->family == Family::kBlock; }

void BlockToTune::note_inputs(std::size_t slot, const calib::InputMoments& moments) {
  if (!tuning_.search_again || !has_blocks(slot)) return;
  std::vector<std::vector<float>>& importance = importance_[slot];
  for (std::int64_t m = 0; m < moments.n_matrices(); ++m) {
    const std::span<const float> squares = moments.mean_square(m);
    importance.emplace_back(squares.begin(), squares.end());
  }
}

void BlockToTune::absorb(const std::vector<std::size_t>& later) {
  if (tuning_.absorb_iterations == 0 || later.empty()) return;
  tune::TunedBlock tuned = tune::absorb_error(context_, source_, layer_, states(), later, tuning_);
  for (std::size_t i = 0; i < tuned.tensors.size(); ++i) {
    source_.exchange(later[i], std::move(tuned.tensors[i]));
    absorbed_[later[i]] = numbers_of(source_, later[i]);
  }
}

// In place of the tuned tensors, if it is better: with scales that are searched for the weights as tuning left them.
bool BlockToTune::search_again(tune::TunedBlock& tuned) {
  if (!tuning_.search_again) return false;
  const SlotSolver solver{context_, source_, options_.method};
  bool any = false;
  for (std::size_t i = 0; i < originals_.size(); ++i) {
    const std::size_t slot = originals_[i].slot;
    if (!has_blocks(slot)) continue;
    any = true;
    SlotTarget to = targets_[slot];
    to.method = &method::default_for(*to.target);
    source_.exchange(slot, std::move(tuned.unrounded[i]));
    source_.exchange(slot, solver.solve_by_importance(slot, to, importance_[slot]));
  }
  if (!any) return false;
  const double error = tune::block_error(context_, source_, layer_, states(), tuning_);
  if (!(error < tuned.after)) return false;
  tuned.after = error;
  return true;
}

void BlockToTune::tune(std::vector<SlotOutcome>& outcomes) {
  if (originals_.empty()) return;
  std::vector<tune::BlockTensor> tensors;
  for (const Original& original : originals_) {
    const auto absorbed = absorbed_.find(original.slot);
    tensors.push_back({original.slot, source_.weight(original.slot).view,
                       absorbed != absorbed_.end() ? absorbed->second : original.weights});
  }
  tune::TunedBlock tuned = tune::tune_block(context_, source_, layer_, states(), std::move(tensors), tuning_);
  const bool better = !tuned.tensors.empty(), searched = better && search_again(tuned);
  for (std::size_t i = 0; i < tuned.tensors.size(); ++i) {
    if (!searched || !has_blocks(originals_[i].slot)) source_.exchange(originals_[i].slot, std::move(tuned.tensors[i]));
  }
  for (const Original& original : originals_) {
    SlotOutcome& outcome = outcomes[original.slot];
    outcome.note += format_text("{}block tuned in {:.0f} s: error {:.3g} -> {:.3g}{}", outcome.note.empty() ? "" : ", ",
                                tuned.seconds, tuned.before, tuned.after, searched ? ", scales searched again" : "");
    if (!better && !absorbed_.contains(original.slot)) continue;
    const std::vector<float> now = numbers_of(source_, original.slot);
    outcome.errors = sum_errors(original.weights.data(), now.data(), std::ssize(now));
  }
  if (!better) return;
  walk_.reload(context_, layer_);
  walk_.run_again(context_, layer_, before_.floats());
}

}  // namespace nibble::pipeline
