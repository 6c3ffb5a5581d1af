// A block on its way through the walk, remembered as it was before it was quantized, so that it can be tuned to what it
// gave then.
#pragma once

#include <vector>

#include "base/exec_context.h"
#include "base/spill_buffer.h"
#include "calib/block_walk.h"
#include "model/source.h"
#include "pipeline/slot_solver.h"
#include "tune/block_tuner.h"

namespace nibble::pipeline {

class BlockToTune {
 public:
  // Before the first weight of the block is exchanged and before the walk enters it. All must outlive this.
  BlockToTune(ExecContext& context, const model::ModelSource& source, calib::BlockWalk& walk,
              const std::vector<SlotTarget>& targets, int layer, std::uint64_t memory_limit);
  // Behind the block: exchanges what became better in `source`, and lets the walk go through the block again. Notes and
  // errors go to the outcomes.
  void tune(const tune::BlockTuning& tuning, model::ModelSource& source, std::vector<SlotOutcome>& outcomes);

 private:
  struct Original {
    std::size_t slot;
    std::vector<float> weights;
  };
  ExecContext& context_;
  calib::BlockWalk& walk_;
  int layer_;
  SpillBuffer before_;  // as BlockWalk::states()
  std::vector<Original> originals_;
};

}  // namespace nibble::pipeline
