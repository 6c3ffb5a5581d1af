// Scales and zero points that are fixed, of a linear's inputs or of a cache: tensors of one number each.
#pragma once

#include <string>
#include <string_view>

#include "container/hf/scaled_floats.h"
#include "encoding/activation.h"

namespace nibble::container::hf {

// The number that a tensor of one holds. Throws Error{kFormat} naming a tensor that is missing (null), saying that it
// scales `what`, or is no number.
double read_number(const TensorEntry* entry, const std::string& name, std::string_view what);

// Where they lie; an empty name: the file has none.
struct StaticInputs {
  std::string scale, zero;
  int zero_offset = 0;  // of the number in the file, to the codes of ActivationInfo
};
// Of a dynamic type nothing is read. What was read is no tensor of its own any more. Throws Error{kFormat} naming a
// tensor that is missing or no number of its kind.
InputRounding read_inputs(TensorJoin& joined, const encoding::ActivationInfo& info, const StaticInputs& at);

}  // namespace nibble::container::hf
