#include "kernel/linear.h"

#include "base/error.h"

namespace nibble::kernel {

const LinearKernel& choose_linear(const encoding::EncodingInfo& weights, std::int64_t cols, Isa isa) {
  for (const LinearKernel* kernel : all_entries()) {
    if (kernel->isa <= isa && kernel->min_tokens <= 1 && kernel->accepts(weights, cols)) return *kernel;
  }
  fail(ErrorCode::kUnsupported, "no kernel for {} weights of {} columns", weights.name, cols);
}

const LinearKernel& choose_wide(const encoding::EncodingInfo& weights, std::int64_t cols, Isa isa) {
  const LinearKernel& one = choose_linear(weights, cols, isa);
  for (const LinearKernel* kernel : all_entries()) {
    const bool same_layout = kernel->layout.pack == one.layout.pack;
    if (kernel->isa <= isa && kernel->min_tokens > 1 && same_layout && kernel->accepts(weights, cols)) return *kernel;
  }
  return one;
}

}  // namespace nibble::kernel
