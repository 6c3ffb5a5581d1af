#include "kernel/linear.h"

#include "base/error.h"
#include "encoding/activation.h"

namespace nibble::kernel {

namespace {

bool takes_inputs(const LinearKernel& kernel, const encoding::ActivationInfo* inputs) {
  if (inputs == nullptr) return !kernel.activation->needs_type;
  return kernel.activation->rounds != nullptr && kernel.activation->rounds(*inputs);
}

}  // namespace

const LinearKernel& choose_linear(const encoding::EncodingInfo& weights, std::int64_t cols, Isa isa, bool even_groups,
                                  const encoding::ActivationInfo* inputs) {
  for (const LinearKernel* kernel : all_entries()) {
    const bool takes = (even_groups || kernel->layout.column_order == nullptr) && takes_inputs(*kernel, inputs);
    if (kernel->isa <= isa && kernel->min_tokens <= 1 && takes && kernel->accepts(weights, cols)) return *kernel;
  }
  fail(ErrorCode::kUnsupported, "no kernel for {} weights of {} columns{}{}", weights.name, cols,
       inputs != nullptr ? " and inputs of " : "", inputs != nullptr ? inputs->name : "");
}

const LinearKernel& choose_wide(const encoding::EncodingInfo& weights, std::int64_t cols, Isa isa, bool even_groups,
                                const encoding::ActivationInfo* inputs) {
  const LinearKernel& one = choose_linear(weights, cols, isa, even_groups, inputs);
  for (const LinearKernel* kernel : all_entries()) {
    const bool takes = kernel->layout.pack == one.layout.pack && takes_inputs(*kernel, inputs);
    if (kernel->isa <= isa && kernel->min_tokens > 1 && takes && kernel->accepts(weights, cols)) return *kernel;
  }
  return one;
}

}  // namespace nibble::kernel
