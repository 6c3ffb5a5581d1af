#include "ops/ops.h"

namespace nibble::ops {

const OpTable& choose_ops(Isa isa) {
  if (isa >= Isa::kAvx512) return avx512_ops();
  if (isa >= Isa::kAvx2) return avx2_ops();
  return scalar_ops();
}

}  // namespace nibble::ops
