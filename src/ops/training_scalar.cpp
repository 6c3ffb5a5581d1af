#include "ops/training_kernels.h"

namespace nibble::ops {

const TrainingOps<float>& training_ops_scalar() noexcept { return kTraining<float>; }
const TrainingOps<double>& training_ops_double() noexcept { return kTraining<double>; }

}  // namespace nibble::ops
