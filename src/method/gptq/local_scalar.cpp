#include "method/gptq/local_kernel.h"

namespace nibble::method::gptq {
namespace {
void refine(const LocalGrid& grid, const LocalMetric& metric, int rounds, LocalState& state) noexcept {
  refine_block(grid, metric, rounds, state);
}
void sweep(const LocalGrid& grid, const float* factor, int64_t stride, float* target, float* errors,
           LocalState& state) noexcept {
  sweep_block(grid, factor, stride, target, errors, state);
}
}  // namespace
const LocalKernel kLocalScalar = {refine, sweep};
}  // namespace nibble::method::gptq
