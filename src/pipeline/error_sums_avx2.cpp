#include "pipeline/error_lanes.h"

namespace nibble::pipeline {

const ErrorLoops& error_loops_avx2() noexcept {
  static constexpr ErrorLoops loops = {lanes_sum_block, lanes_any_not_finite};
  return loops;
}

}  // namespace nibble::pipeline
