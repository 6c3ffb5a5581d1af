// What `train` does with the weights of a model, between an opened source and what is written: its parameters on, or
// into the types that a plan gives them.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "base/exec_context.h"
#include "model/source.h"
#include "nibble/train.h"
#include "pipeline/training_data.h"
#include "train/trainer.h"
#include "transform/transform.h"

namespace nibble::pipeline {

struct TrainingJob {
  const TrainRequest& request;
  const TrainingData& data;
  std::filesystem::path folder;  // of the run's state and curve
};

// The request's numbers as the trainer wants them; `lr`, `beta2`: where it names none.
train::TrainerOptions trainer_options(const TrainingJob& job, double lr);
train::BatchOptions batch_options(const TrainRequest& request);

// Each exchanges in `source` what became of its weights.
train::TrainedRun train_plainly(ExecContext& context, const std::shared_ptr<model::ModelSource>& source,
                                const TrainingJob& job, TrainReport& report);
// targets: by slot. Blocks are quantized by gptq first, of efficientqat tuned, too; then the whole model is trained, as
// the request says, in those types.
train::TrainedRun train_quantized(ExecContext& context, const std::shared_ptr<model::ModelSource>& source,
                                  const std::vector<transform::SlotTarget>& targets, const TrainingJob& job,
                                  TrainReport& report);

// An adapter of `source`, which stays as it is, written to the request's output.
train::TrainedRun train_lora(ExecContext& context, const std::shared_ptr<const model::ModelSource>& source,
                             const TrainingJob& job, TrainReport& report);

}  // namespace nibble::pipeline
