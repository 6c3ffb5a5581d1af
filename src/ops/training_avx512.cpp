#include "ops/training_kernels.h"

namespace nibble::ops {

const TrainingOps<float>& training_ops_avx512() noexcept { return kTraining<float>; }

}  // namespace nibble::ops
