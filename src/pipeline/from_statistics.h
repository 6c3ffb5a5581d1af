// Quantizing with statistics that were saved, in place of a text: no model runs.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/exec_context.h"
#include "calib/statistics_file.h"
#include "model/source.h"
#include "pipeline/slot_solver.h"

namespace nibble::pipeline {

// As quantize_blockwise() of the same targets, with statistics of this model (calib::check_source()), but each linear
// with what flows into it in the unquantized model: nothing is corrected for layers that were quantized before. Throws
// Error{kInvalidArgument} naming file and tensor where a target or its method finds no statistics.
std::vector<SlotOutcome> quantize_from_statistics(ExecContext& context,
                                                  const std::shared_ptr<model::ModelSource>& source,
                                                  const calib::StatisticsFile& statistics,
                                                  const std::vector<SlotTarget>& targets,
                                                  const method::Options& options,
                                                  const std::function<void(int layer)>& block_done);

}  // namespace nibble::pipeline
