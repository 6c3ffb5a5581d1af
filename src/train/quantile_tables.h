// Tables that round the states of an optimizer to the dynamic 8-bit maps of bitsandbytes.
#pragma once

#include "train/parameter_loops.h"

namespace nibble::train {

const QuantileTable& signed_quantiles();    // of averages of gradients; codes as in encoding::dynamic_map()
const QuantileTable& unsigned_quantiles();  // of averages of squares; as in encoding::unsigned_dynamic_map()

}  // namespace nibble::train
