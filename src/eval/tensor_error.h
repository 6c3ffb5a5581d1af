// How far each weight of a model lies from the same weight of its reference.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/exec_context.h"
#include "json/json.h"
#include "model/source.h"

namespace nibble::eval {

struct TensorError {
  std::string name;      // Hugging Face's
  std::string encoding;  // of the candidate
  std::int64_t elements = 0;
  std::uint64_t n_bytes = 0;
  double relative_mse = 0;  // sum (w - q)² / sum w²; 0 for a zero tensor held exactly
  double snr_db = 0;        // -10 log10(relative_mse); infinite when exact
  double cosine = 1;        // of the two tensors as vectors
  double max_abs = 0;       // largest |w - q|
};

// Every weight of the candidate that the reference has too, in the order of the spec, on canonical rows, so that files
// of different containers compare. Sums in f64 by rows, so that threads do not matter. Throws Error{kInvalidArgument}
// when the models differ in a shape or in their weights.
std::vector<TensorError> tensor_errors(ExecContext& context, const model::ModelSource& reference,
                                       const model::ModelSource& candidate);

json::Value to_json(const std::vector<TensorError>& errors);
std::string to_table(const std::vector<TensorError>& errors);

}  // namespace nibble::eval
