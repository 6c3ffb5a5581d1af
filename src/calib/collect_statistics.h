// Collects statistics of the inputs of every linear of an unquantized model into a file. Memory: the
// statistics of half a block, and the hidden states of all tokens (on disk above a limit).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/exec_context.h"
#include "calib/block_walk.h"
#include "calib/statistics_file.h"

namespace nibble::calib {

struct StatisticsPlan {
  StatisticsHeader header;    // without texts
  std::vector<Stage> stages;  // of each input
};
// What there is to collect, found by a walk of a few tokens.
StatisticsPlan plan_statistics(ExecContext& context, const std::shared_ptr<const model::ModelSource>& source,
                               const StatisticsKinds& kinds);

// How much of a text came by an input: tokens of each matrix.
struct InputCoverage {
  std::vector<std::int64_t> tokens, held_out;
};

// Writes every input: what the text gives, and what `merge` holds of it, which check_same_model() has seen.
std::vector<InputCoverage> collect_statistics(ExecContext& context,
                                              const std::shared_ptr<const model::ModelSource>& source,
                                              const StatisticsPlan& plan, const TokenChunks& chunks,
                                              std::span<const StatisticsFile> merge, StatisticsWriter& writer);
// The files alone, at least one; `writer` may be null, to look only.
std::vector<InputCoverage> merge_statistics(ExecContext& context, std::span<const StatisticsFile> files,
                                            StatisticsWriter* writer);

}  // namespace nibble::calib
