#include "kernel/linear.h"

#include "base/error.h"

namespace nibble::kernel {

const LinearKernel& choose_linear(const encoding::EncodingInfo& weights, std::int64_t cols, Isa isa) {
  for (const LinearKernel* kernel : all_entries()) {
    if (kernel->isa <= isa && kernel->accepts(weights, cols)) return *kernel;
  }
  fail(ErrorCode::kUnsupported, "no kernel for {} weights of {} columns", weights.name, cols);
}

}  // namespace nibble::kernel
