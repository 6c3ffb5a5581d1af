// Quantizing a model block by block, with statistics of what flows into each linear from the part that is quantized
// already (arXiv 2210.17323, true-sequential order of its reference).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/exec_context.h"
#include "calib/observers.h"
#include "calib/statistics_file.h"
#include "calib/token_chunks.h"
#include "method/quantizer.h"
#include "model/source.h"
#include "nibble/quantize.h"
#include "pipeline/slot_solver.h"
#include "transform/transform.h"
#include "tune/block_tuner.h"

namespace nibble::pipeline {

struct BlockwiseOptions {
  method::Options method;
  std::vector<transform::Chosen> transforms;                // of each block before it is quantized, in order
  std::shared_ptr<const calib::StatisticsFile> statistics;  // in place of a text; no transforms then
  const calib::Observer* observer = nullptr;                // of inputs whose scales are fixed
  // Of each block behind its solvers, by gradients; needs a text.
  std::optional<tune::BlockTuning> tuning;
  const encoding::ActivationInfo* cache = nullptr;  // of a KV cache whose scales are fixed; null: none
  const calib::Observer* cache_observer = nullptr;  // of its keys and values
  bool cross = false;  // statistics against the unquantized model as well, which then runs beside it
  std::uint64_t memory_limit = std::uint64_t{2} << 30;
};

// targets: by slot of source.spec(). Every weight with a target that is a linear of a block, or the head, is exchanged
// in `source` for its quantized form, what transforms rewrite beside it too; `block_done` is called after each block
// with its number, and after the head with -1, and may take the weights of the block away again (ModelSource::restore).
// A cache's scales are given to `source`. Returns what became of each slot. Throws Error{kInvalidArgument} for a text
// shorter than one chunk, Error{kFormat} for weights or inputs that are no numbers. `spent` is filled in.
std::vector<SlotOutcome> quantize_blockwise(ExecContext& context, const std::shared_ptr<model::ModelSource>& source,
                                            const calib::TokenChunks& chunks, const std::vector<SlotTarget>& targets,
                                            const BlockwiseOptions& options,
                                            const std::function<void(int layer)>& block_done, PhaseSeconds& spent);

}  // namespace nibble::pipeline
