// What each type would cost each tensor: the KL divergence of a model in which nothing else is quantized.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/exec_context.h"
#include "calib/token_chunks.h"
#include "method/quantizer.h"
#include "pipeline/conversion.h"

namespace nibble::pipeline {

struct TypeCandidate {
  const encoding::EncodingInfo* type = nullptr;
  const method::Method* method = nullptr;  // null: the numbers are copied or cast, which costs nothing here
  std::uint64_t bytes = 0;                 // in the file
  double error = 0;                        // of what the tensor makes of its inputs: mean square, relative
  double loss = 0;                         // KL divergence, nats
};

// A tensor whose type is open.
struct OpenTensor {
  std::size_t index = 0;                  // in conversion.tensors
  std::vector<TypeCandidate> candidates;  // by rising bytes
  std::vector<float> importance;          // mean squares of its inputs, where they are known beforehand
  bool measured = false;                  // by divergence, or estimated
};

struct SensitivityOptions {
  method::Options method;
  std::uint64_t memory_limit = std::uint64_t{2} << 30;
};

// Fills in errors and losses. Of each tensor every candidate is solved with statistics from `calibration`; one of them
// is put in the place of the tensor in the unquantized model, and what that does to the predictions on `judge` is
// measured; the others follow in proportion to their errors. Tensors that calibration does not come by are estimated.
// Shows progress in tensors.
void measure_losses(ExecContext& context, const Conversion& conversion, const calib::TokenChunks& calibration,
                    const calib::TokenChunks& judge, const SensitivityOptions& options,
                    std::vector<OpenTensor>& tensors);
// The same from weights and importance alone: losses are relative errors, comparable only with each other.
void estimate_losses(ExecContext& context, const Conversion& conversion, const SensitivityOptions& options,
                     std::vector<OpenTensor>& tensors);

}  // namespace nibble::pipeline
