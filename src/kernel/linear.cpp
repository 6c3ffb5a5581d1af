#include "kernel/linear.h"

#include "base/error.h"

namespace nibble::kernel {

const LinearKernel& choose_linear(const encoding::EncodingInfo& weights, std::int64_t cols, Isa isa, bool even_groups) {
  for (const LinearKernel* kernel : all_entries()) {
    const bool takes = even_groups || kernel->layout.column_order == nullptr;
    if (kernel->isa <= isa && kernel->min_tokens <= 1 && takes && kernel->accepts(weights, cols)) return *kernel;
  }
  fail(ErrorCode::kUnsupported, "no kernel for {} weights of {} columns", weights.name, cols);
}

const LinearKernel& choose_wide(const encoding::EncodingInfo& weights, std::int64_t cols, Isa isa, bool even_groups) {
  const LinearKernel& one = choose_linear(weights, cols, isa, even_groups);
  for (const LinearKernel* kernel : all_entries()) {
    const bool same_layout = kernel->layout.pack == one.layout.pack;
    if (kernel->isa <= isa && kernel->min_tokens > 1 && same_layout && kernel->accepts(weights, cols)) return *kernel;
  }
  return one;
}

}  // namespace nibble::kernel
