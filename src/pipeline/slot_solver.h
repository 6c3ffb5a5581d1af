// One weight of a block, or the head, quantized with the statistics of what flows into it.
#pragma once

#include <cstdint>
#include <string>

#include "base/exec_context.h"
#include "calib/block_walk.h"
#include "method/quantizer.h"
#include "model/source.h"
#include "pipeline/error_sums.h"
#include "transform/transform.h"

namespace nibble::pipeline {

using transform::SlotTarget;

struct SlotOutcome {
  ErrorSums errors;
  double seconds = 0;       // of all threads, solving
  std::int64_t tokens = 0;  // that the statistics were made of; of a stack the fewest of any matrix
  std::string note;
};

// The statistics of a stage: what the method is given, and what it is judged by.
struct StageMoments {
  calib::InputMoments train, held_out;
};
// `gram`: a method wants it; `cross`: beside that against the unquantized model.
StageMoments collect_moments(ExecContext& context, calib::BlockWalk& walk, const calib::Stage& stage, bool gram,
                             bool cross);
method::Statistics statistics_of(const StageMoments& moments, std::int64_t matrix);

// The weight of that role; a tied head is the embedding.
inline constexpr std::size_t kNoSlot = ~std::size_t{0};
std::size_t find_slot(const model::ModelSpec& spec, model::Role role, int layer);

struct SlotSolver {
  ExecContext& context;
  const model::ModelSource& source;
  const method::Options& options;

  Tensor solve(std::size_t slot, const calib::Stage& stage, const StageMoments& moments, const SlotTarget& to,
               SlotOutcome& outcome) const;
  // Without statistics.
  Tensor solve_alone(std::size_t slot, const SlotTarget& to) const;

 private:
  void solve_matrix(const method::Method& method, const method::Job& job, std::size_t slot, std::int64_t matrix,
                    Tensor& tensor, ErrorSums& errors) const;
};

}  // namespace nibble::pipeline
