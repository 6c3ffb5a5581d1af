// One weight of a block, or the head, quantized with the statistics of what flows into it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

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
// All numbers of a weight, (rows, cols).
std::vector<float> numbers_of(const model::ModelSource& source, std::size_t slot);

struct SlotSolver {
  ExecContext& context;
  const model::ModelSource& source;
  const method::Options& options;

  // `kept`: the columns that a target of such keeps in 16 bits.
  Tensor solve(std::size_t slot, const calib::Stage& stage, const StageMoments& moments, const SlotTarget& to,
               SlotOutcome& outcome, std::span<const std::int32_t> kept = {}) const;
  // What quantizing changes in the output of the linear, mean square, over that of the output, judged by held-out
  // inputs: of at most `most_rows` rows of each matrix, spread over it. Rows are solved independently of each other.
  double relative_error(std::size_t slot, const calib::Stage& stage, const StageMoments& moments, const SlotTarget& to,
                        std::int64_t most_rows) const;
  // Without statistics but the importance of each column, of a stack of each of its matrices; none: all alike.
  Tensor solve_by_importance(std::size_t slot, const SlotTarget& to,
                             const std::vector<std::vector<float>>& importance) const;
  // Without statistics.
  Tensor solve_alone(std::size_t slot, const SlotTarget& to) const;

 private:
  // Of one matrix, with the method for it: an expert that saw few tokens is solved without statistics.
  method::Job job_of(std::size_t slot, const calib::Stage& stage, const StageMoments& moments, std::int64_t matrix,
                     const SlotTarget& to, const method::Method*& method) const;
  void solve_matrix(const method::Method& method, const method::Job& job, std::size_t slot, std::int64_t matrix,
                    std::span<const std::int32_t> kept, Tensor& tensor, ErrorSums& errors) const;
};

}  // namespace nibble::pipeline
