#include "pipeline/block_to_tune.h"

#include <algorithm>

#include "base/format.h"

namespace nibble::pipeline {

using calib::Share;

BlockToTune::BlockToTune(ExecContext& context, const model::ModelSource& source, calib::BlockWalk& walk,
                         const std::vector<SlotTarget>& targets, int layer, std::uint64_t memory_limit)
    : context_(context), walk_(walk), layer_(layer) {
  const std::int64_t tokens = walk.n_tokens(Share::kTrain) + walk.n_tokens(Share::kHeldOut);
  const std::int64_t n = tokens * walk.spec().hidden;
  before_ = SpillBuffer(static_cast<std::uint64_t>(n) * sizeof(float), memory_limit);
  std::copy_n(walk.states(), n, before_.floats());
  for (std::size_t slot = 0; slot < targets.size(); ++slot) {
    if (walk.spec().weights[slot].layer != layer || targets[slot].target == nullptr) continue;
    if (!tune::RoundedTensor::supports(*targets[slot].target)) continue;
    originals_.push_back({slot, numbers_of(source, slot)});
  }
}

void BlockToTune::tune(const tune::BlockTuning& tuning, model::ModelSource& source,
                       std::vector<SlotOutcome>& outcomes) {
  if (originals_.empty()) return;
  tune::BlockStates states;
  states.length = walk_.sequence_length();
  states.n_train = walk_.n_sequences(Share::kTrain);
  states.n_held_out = walk_.n_sequences(Share::kHeldOut);
  const std::int64_t train = walk_.n_tokens(Share::kTrain) * walk_.spec().hidden;
  states.inputs = before_.floats();
  states.held_out_inputs = before_.floats() + train;
  states.targets = walk_.original_states();
  states.held_out_targets = walk_.original_states() + train;
  std::vector<tune::BlockTensor> tensors;
  for (const Original& original : originals_)
    tensors.push_back({original.slot, source.weight(original.slot).view, original.weights});
  tune::TunedBlock tuned = tune::tune_block(context_, source, layer_, states, std::move(tensors), tuning);
  for (std::size_t i = 0; i < originals_.size(); ++i) {
    const std::size_t slot = originals_[i].slot;
    SlotOutcome& outcome = outcomes[slot];
    outcome.note += format_text("{}block tuned in {:.0f} s: error {:.3g} -> {:.3g}", outcome.note.empty() ? "" : ", ",
                                tuned.seconds, tuned.before, tuned.after);
    if (tuned.tensors.empty()) continue;
    source.exchange(slot, std::move(tuned.tensors[i]));
    const std::vector<float> now = numbers_of(source, slot);
    outcome.errors = sum_errors(originals_[i].weights.data(), now.data(), std::ssize(now));
  }
  if (tuned.tensors.empty()) return;
  walk_.reload(context_, layer_);
  walk_.run_again(context_, layer_, before_.floats());
}

}  // namespace nibble::pipeline
