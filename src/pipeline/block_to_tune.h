// A block on its way through the walk, remembered as it was before it was quantized, so that it can be tuned to what it
// gave then.
#pragma once

#include <map>
#include <vector>

#include "base/exec_context.h"
#include "base/spill_buffer.h"
#include "calib/block_walk.h"
#include "model/source.h"
#include "pipeline/blockwise.h"
#include "pipeline/slot_solver.h"
#include "tune/block_tuner.h"

namespace nibble::pipeline {

class BlockToTune {
 public:
  // Before the first weight of the block is exchanged and before the walk enters it. All must outlive this.
  BlockToTune(ExecContext& context, model::ModelSource& source, calib::BlockWalk& walk,
              const std::vector<SlotTarget>& targets, const BlockwiseOptions& options, int layer);
  // The statistics that a weight was quantized with.
  void note_inputs(std::size_t slot, const calib::InputMoments& moments);
  // What is quantized by now loses something, which those of `later` that are not are trained to make up for, and
  // exchanged if they do.
  void absorb(const std::vector<std::size_t>& later);
  bool absorbed(std::size_t slot) const { return absorbed_.contains(slot); }
  // Behind the block: exchanges what became better, and lets the walk go through the block again. Notes and errors go
  // to the outcomes.
  void tune(std::vector<SlotOutcome>& outcomes);

 private:
  struct Original {
    std::size_t slot;
    std::vector<float> weights;
  };
  tune::BlockStates states() const;
  bool search_again(tune::TunedBlock& tuned);
  bool has_blocks(std::size_t slot) const;

  ExecContext& context_;
  model::ModelSource& source_;
  calib::BlockWalk& walk_;
  const std::vector<SlotTarget>& targets_;
  const BlockwiseOptions& options_;
  const tune::BlockTuning& tuning_;
  int layer_;
  SpillBuffer before_;  // as BlockWalk::states()
  SpillBuffer behind_;  // those of the original behind the block, where they are asked for before it is passed
  std::vector<Original> originals_;
  std::map<std::size_t, std::vector<float>> absorbed_;                 // by slot: what was quantized in their place
  std::map<std::size_t, std::vector<std::vector<float>>> importance_;  // by slot: of the columns of each matrix
};

}  // namespace nibble::pipeline
