// Activations as they are: rows of f32, padded to 64 bytes.
#pragma once

#include "kernel/linear.h"

namespace nibble::kernel {

extern const ActivationFormat kF32Activations;

}  // namespace nibble::kernel
