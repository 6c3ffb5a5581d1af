// Activations in int8 with one scale for a row, as inputs of tokens or whole tensors are rounded (i8_rows.h): one
// format for each instruction set, all giving the same bytes, with room for inputs that are kept as they are or
// without.
#pragma once

#include "kernel/i8_rows.h"
#include "kernel/linear.h"

namespace nibble::kernel {

extern const ActivationFormat kI8RowsScalar, kI8RowsAvx2, kI8RowsAvx512;              // no threshold
extern const ActivationFormat kI8KeptRowsScalar, kI8KeptRowsAvx2, kI8KeptRowsAvx512;  // with one

// The rows that one of these formats has written.
I8Rows i8_rows(const ActivationFormat& format, const std::byte* rows, std::int64_t cols) noexcept;

}  // namespace nibble::kernel
