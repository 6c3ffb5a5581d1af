// `--type auto`: a mix of types made for one model and one size, from what each type costs each of its tensors.
#pragma once

#include "nibble/quantize.h"

namespace nibble::pipeline {

// As quantize_model() of a request whose type is "auto". With a calibration text its result and the largest stock mix
// within the size are both made and measured on tokens that nothing was learned from, and the better one stays.
QuantizeReport quantize_auto(const QuantizeRequest& request, const RunContext& run);

}  // namespace nibble::pipeline
