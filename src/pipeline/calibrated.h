// The corridor's transfer where methods learn from a text or from statistics of one: block by block, each tensor
// written when it is solved.
#pragma once

#include <filesystem>
#include <vector>

#include "base/exec_context.h"
#include "calib/token_chunks.h"
#include "container/checkpoint.h"
#include "pipeline/blockwise.h"
#include "pipeline/transfer.h"

namespace nibble::pipeline {

struct CalibrationText {
  std::filesystem::path file;
  std::int64_t tokens = 0;   // at most
  std::int64_t context = 0;  // tokens of a sequence; 0: 512 or what the model was trained for, if that is less
};

// Tokens of a sequence where none are asked for: 512, or what the model was trained for if that is less.
std::int64_t default_context(const model::ModelSpec& spec);

// The first tokens of the text, whole sequences. Errors as calib::chunk_file().
calib::TokenChunks calibration_chunks(const model::ModelSource& source, const CalibrationText& text);

// Weights that no statistics are made for (embeddings that are not the head) get the default method of their type and a
// note; throws Error{kUnsupported} when the model's architecture is not known.
void settle_methods(const Conversion& conversion, QuantPlan& plan);

// By slot of the model's spec: what the plan makes of each weight that a tensor of its own holds.
std::vector<SlotTarget> slot_targets(const Conversion& conversion, const QuantPlan& plan);

// As transfer() of the whole plan, which settle_methods() has seen. Chunks are not looked at where `blockwise` has
// statistics.
std::vector<TensorOutcome> transfer_calibrated(ExecContext& context, Conversion& conversion, QuantPlan& plan,
                                               const TransferOptions& options, const BlockwiseOptions& blockwise,
                                               const calib::TokenChunks& chunks, container::CheckpointWriter& writer,
                                               PhaseSeconds& spent);

}  // namespace nibble::pipeline
