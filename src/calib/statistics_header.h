// The header of a statistics file: its strings, and the tensors that follow from it.
#pragma once

#include <vector>

#include "calib/statistics_file.h"

namespace nibble::calib {

// Tensors of one input, in this order; those of kinds that are not kept are left out.
//   NAME.tokens (matrices) i64
//   NAME.gram (matrices, cols * (cols + 1) / 2): of each the lower triangle, row by row
//   NAME.held_out_tokens, NAME.held_out_gram: the same of the sequences kept apart
//   NAME.mean_square, NAME.mean_abs, NAME.max_abs (matrices, cols)
// and at last "probe" (inputs, kProbe). Numbers are f32.
std::vector<container::PlannedTensor> planned_tensors(const StatisticsHeader& header);
std::size_t tensors_per_input(const StatisticsKinds& kinds);

container::Metadata to_metadata(const StatisticsHeader& header);
// All but the probe. Throws Error{kFormat}.
StatisticsHeader from_metadata(const container::Metadata& metadata);

}  // namespace nibble::calib
