// A training run: batches, gradients, steps, what it measures on the way, and how it stops and goes on again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "json/json.h"
#include "train/batches.h"
#include "train/language_loss.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace nibble::train {

// What is trained, as the run sees it.
class TrainedModel {
 public:
  virtual ~TrainedModel() = default;
  // In the same order every time.
  virtual std::vector<Parameter*> parameters() = 0;
  // The gradient of the summed loss / divisor is added to the parameters' gradients. `pass` tells apart the batches of
  // the run, for what is random (dropout).
  virtual LossSums add_gradients(const TokenBatch& batch, double divisor, std::uint64_t pass) = 0;
  virtual LossSums loss(const TokenBatch& batch) = 0;
  virtual void after_step() {}
  virtual std::size_t memory_bytes() const { return 0; }
};

struct TrainerOptions {
  std::int64_t steps = 0;
  std::int64_t accumulate = 1;  // batches of a step
  OptimizerSpec optimizer;
  std::string schedule = "cosine";
  std::int64_t warmup_steps = 0;
  double final_fraction = 0;
  double clip = 1;  // greatest norm of the gradient; 0: none
  std::uint64_t seed = 0;
  std::int64_t evaluate_every = 0;  // steps between two looks at the held-out examples; 0: at the end alone
  std::int64_t save_every = 0;      // steps between two states on disk; 0: when stopped alone
  std::uint64_t state_memory_limit = ~std::uint64_t{0};  // bytes of optimizer states in RAM
  std::filesystem::path folder;                          // of the state and the curve; empty: neither
  bool resume = false;                                   // from the state in `folder`
  json::Object settings;                                 // of the caller, that a resumed run must share
};

struct TrainedRun {
  std::int64_t steps = 0, tokens = 0;
  double first_loss = 0, last_loss = 0;  // of the steps taken now, nats per prediction
  double held_out_before = 0, held_out_after = 0;
  double seconds = 0;
  std::uint64_t optimizer_bytes = 0;
  bool resumed = false;
};

// Trains for as many steps as are asked for, counted from the run's beginning. The numbers are those of a run that was
// never interrupted. Throws Error{kCancelled} when stopped, with the state saved; Error{kInvalidArgument} naming step,
// loss and norm where they are no numbers: the state before that step is saved.
TrainedRun train(ExecContext& context, TrainedModel& model, std::span<const Example> examples,
                 const BatchOptions& batches, std::span<const Example> held_out, const TrainerOptions& options);

// Nats per prediction over examples, some sequences at a time.
double mean_loss(ExecContext& context, TrainedModel& model, std::span<const Example> examples,
                 std::int64_t n_sequences);

// The files of a run in its folder.
std::filesystem::path state_path(const std::filesystem::path& folder);
std::filesystem::path curve_path(const std::filesystem::path& folder);

}  // namespace nibble::train
