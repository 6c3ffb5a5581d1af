// Activations in int8 with one f32 scale per 32 columns, as the integer kernels want them (panel.h): one format for
// each instruction set, all giving the same bytes.
#pragma once

#include "kernel/linear.h"
#include "kernel/panel.h"

namespace nibble::kernel {

extern const ActivationFormat kQ8ActivationsScalar;
extern const ActivationFormat kQ8ActivationsAvx2;
extern const ActivationFormat kQ8ActivationsAvx512;

// The rows that one of these formats has written.
Activations q8_activations(const std::byte* rows, std::int64_t cols) noexcept;

}  // namespace nibble::kernel
