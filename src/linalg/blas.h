// What the functions of this folder ask of the library alike; for no other folder.
#pragma once

#include <cblas.h>

#include <cstdint>

#include "base/checked.h"

namespace nibble::linalg {

// Before every call: the library's own threads would oversubscribe ours and change how sums are cut.
inline void use_calling_thread_only() {
  static const bool done = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(done);
}

inline blasint blas(std::int64_t value) { return checked_cast<blasint>(value); }

}  // namespace nibble::linalg
