// The norm of all gradients together, and gradients held to a greatest one.
#pragma once

#include <cmath>
#include <span>

#include "base/exec_context.h"
#include "train/parameter.h"

namespace nibble::train {

// The Euclidean norm over all parameters, in double; the same for any number of threads and instruction set. Not finite
// where a gradient is not.
double gradient_norm(ExecContext& context, std::span<Parameter* const> parameters);

struct Clipped {
  double norm = 0;    // before
  double factor = 1;  // that the gradients were multiplied with
  bool finite() const { return std::isfinite(norm); }
};
// As torch.nn.utils.clip_grad_norm_: gradients are multiplied with max_norm / (norm + 1e-6) where that is below 1.
// max_norm 0 only measures. Where the norm is not finite the gradients stay as they are: no step should be taken.
// Throws Error{kInvalidArgument} for a max_norm below 0 or that is none.
Clipped clip_gradients(ExecContext& context, std::span<Parameter* const> parameters, double max_norm);

}  // namespace nibble::train
