// Weights whose outlier columns stay in 16 bits (LLM.int8(), arXiv 2208.07339, 3.2): any method quantizes the others.
#pragma once

#include <span>
#include <vector>

#include "base/exec_context.h"
#include "method/quantizer.h"
#include "tensor/tensor.h"

namespace nibble::method {

// The `count` columns of largest magnitude, ascending, of inputs (n, cols).
std::vector<std::int32_t> largest_columns(std::span<const float> inputs, std::int64_t cols, std::int64_t count);

// As method::quantize_into with a target that keeps columns: `columns` of them, (kept), lie in `out` in f16. The method
// sees zeros in their place, in weights and in statistics.
void quantize_keeping(ExecContext& context, const Method& method, const Job& job, const RowSource& weights,
                      std::span<const std::int32_t> columns, Tensor& out);

}  // namespace nibble::method
