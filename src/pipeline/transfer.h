// The work of the corridor: every tensor of a plan is read, packed and written, in chunks of rows over all threads. The
// bytes do not depend on the number of threads; memory does not depend on the size of tensors, but for those of several
// parts, which are held until they are whole.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/exec_context.h"
#include "container/checkpoint.h"
#include "pipeline/conversion.h"
#include "pipeline/error_sums.h"
#include "pipeline/plan.h"

namespace nibble::pipeline {

// What became of one tensor.
struct TensorOutcome {
  ErrorSums errors;
  double cpu_s = 0;
  // Fingerprints of the first and the last chunk as written, for verify_output(): of their bytes, or of their values
  // where the tensor lies in several parts, which a file may hold in another order.
  std::int64_t first_rows = 0, last_row = 0;  // rows [0, first_rows) and [last_row, end)
  std::uint64_t first_hash = 0, last_hash = 0;
};

struct TransferOptions {
  method::Options method;
  std::vector<std::vector<float>> importance;  // by tensor; empty: none
};

// Writes those tensors of the plan (parallel to conversion.tensors) and fills in what became of each in `outcomes`, as
// long as the plan. Does not commit. Throws Error{kFormat} naming tensor, row and column of a weight that is not
// finite, or that the target type cannot hold.
void transfer(ExecContext& context, const Conversion& conversion, const QuantPlan& plan, const TransferOptions& options,
              std::span<const std::size_t> tensors, container::CheckpointWriter& writer,
              std::vector<TensorOutcome>& outcomes);

// Reopens what was written and compares names, shapes, types and the bytes at both ends of each tensor.
void verify_output(const container::CheckpointReader& output, const QuantPlan& plan,
                   const std::vector<TensorOutcome>& outcomes, std::size_t beside = 0);

}  // namespace nibble::pipeline
