#include "linalg/core.h"

#include <cstdlib>
#include <string_view>

#include "base/cpu.h"
#include "linalg/blas.h"

namespace nibble::linalg {

const char* better_core() {
  if (std::getenv("OPENBLAS_CORETYPE") != nullptr || machine_isa() < Isa::kAvx2) return nullptr;
  for (const std::string_view old : {"Prescott", "Core2", "Penryn", "Nehalem", "Unknown"}) {
    if (openblas_get_corename() == old) return machine_isa() >= Isa::kAvx512 ? "SkylakeX" : "Haswell";
  }
  return nullptr;
}

}  // namespace nibble::linalg
