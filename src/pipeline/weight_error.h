// The relative error of each candidate type of a tensor from its weights and what is known of its inputs beforehand.
#pragma once

#include "base/exec_context.h"
#include "pipeline/sensitivity.h"

namespace nibble::pipeline {

// Sets candidate.error: Σ a (w - v)² / Σ a w² with a the importance of each input, 1 where none is known. A large
// tensor is judged by some of its rows.
void weight_errors(ExecContext& context, const SourceTensor& source, const method::Options& options,
                   OpenTensor& tensor);

}  // namespace nibble::pipeline
