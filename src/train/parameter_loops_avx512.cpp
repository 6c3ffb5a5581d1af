#include "train/parameter_loops.h"

namespace nibble::train {

const ParameterLoops& parameter_loops_avx512() noexcept { return kParameterLoops; }

}  // namespace nibble::train
