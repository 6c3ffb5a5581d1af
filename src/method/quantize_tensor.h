// A whole tensor by a method, on all threads.
#pragma once

#include <span>

#include "method/quantizer.h"
#include "tensor/tensor.h"

namespace nibble::method {

// Quantizes all of `weights`, of job.shape, into the rows of `out` from `first_row` on. The result does not depend on
// the number of threads.
void quantize_into(ExecContext& context, const Method& method, const Job& job, const RowSource& weights,
                   std::int64_t first_row, Tensor& out);
// values: (rows, cols) of job.shape.
Tensor quantize(ExecContext& context, const Method& method, const Job& job, std::span<const float> values);

// What the method changes in the output of a layer: Σ over rows of (v - w) judge (v - w)ᵀ, judge (cols, cols) the gram
// of inputs. weights: (rows, cols) of job.shape.
double layer_error(ExecContext& context, const Method& method, const Job& job, std::span<const float> weights,
                   std::span<const float> judge);

}  // namespace nibble::method
