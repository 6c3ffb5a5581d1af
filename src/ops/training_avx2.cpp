#include "ops/training_kernels.h"

namespace nibble::ops {

const TrainingOps<float>& training_ops_avx2() noexcept { return kTraining<float>; }

}  // namespace nibble::ops
