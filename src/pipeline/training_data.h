// The examples of a training run: from texts and JSON lines, some held out.
#pragma once

#include <cstdint>
#include <vector>

#include "base/exec_context.h"
#include "calib/token_chunks.h"
#include "model/source.h"
#include "nibble/train.h"
#include "train/example.h"

namespace nibble::pipeline {

struct TrainingData {
  std::vector<train::Example> examples, held_out;
  std::int64_t context = 0;  // tokens of the longest sequence
  std::vector<std::string> notes;
};

// Throws Error{kInvalidArgument} without any text or data, and for a context longer than the model's.
TrainingData read_training_data(ExecContext& context, const model::ModelSource& source, const TrainRequest& request);

// Sequences of full length among the examples, of `tokens` tokens or so, as those that blocks are quantized with.
// Throws Error{kInvalidArgument} where there is none.
calib::TokenChunks chunks_of(const TrainingData& data, std::int64_t tokens);

}  // namespace nibble::pipeline
