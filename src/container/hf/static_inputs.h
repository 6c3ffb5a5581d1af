// Scale and zero point of a linear's inputs that are fixed: tensors of one number each.
#pragma once

#include <string>

#include "container/hf/scaled_floats.h"
#include "encoding/activation.h"

namespace nibble::container::hf {

// Where they lie; an empty name: the file has none.
struct StaticInputs {
  std::string scale, zero;
  int zero_offset = 0;  // of the number in the file, to the codes of ActivationInfo
};
// Of a dynamic type nothing is read. What was read is no tensor of its own any more. Throws Error{kFormat} naming a
// tensor that is missing or no number of its kind.
InputRounding read_inputs(TensorJoin& joined, const encoding::ActivationInfo& info, const StaticInputs& at);

}  // namespace nibble::container::hf
