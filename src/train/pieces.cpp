#include "train/pieces.h"

namespace nibble::train {

const ParameterLoops& choose_loops(Isa isa) {
  if (isa >= Isa::kAvx512) return parameter_loops_avx512();
  if (isa >= Isa::kAvx2) return parameter_loops_avx2();
  return kParameterLoops;
}

}  // namespace nibble::train
