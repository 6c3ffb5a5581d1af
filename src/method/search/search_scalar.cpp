#include <stdint.h>

namespace nibble::method::search {
namespace {

constexpr int kWidth = 4;
constexpr int kCandidates = 2;
typedef float Vec __attribute__((vector_size(16)));
typedef float VecUnaligned __attribute__((vector_size(16), aligned(4)));
typedef int32_t Mask __attribute__((vector_size(16)));
typedef int8_t Bytes __attribute__((vector_size(4)));

// The second operand where the two are equal, as MAXPS and MINPS do.
inline Vec vmax(Vec a, Vec b) { return a > b ? a : b; }
inline Vec vmin(Vec a, Vec b) { return a < b ? a : b; }
inline void lookup_cells(const float* cells, Vec cell, Vec& below, Vec& above) {
  for (int i = 0; i < kWidth; ++i) {
    const int index = static_cast<int>(cell[i]);
    below[i] = cells[index];
    above[i] = cells[32 + index];
  }
}
// kWidth integral values in [-128, 127] as bytes.
inline void store_levels(int8_t* dst, Vec levels) {
  const Bytes bytes = __builtin_convertvector(__builtin_convertvector(levels, Mask), Bytes);
  __builtin_memcpy(dst, &bytes, kWidth);
}

}  // namespace
}  // namespace nibble::method::search

#include "method/search/fit_kernel.h"

namespace nibble::method::search {
void fit_batch_scalar(const Layout& layout, Batch& batch) noexcept { fit_batch(layout, batch); }
}  // namespace nibble::method::search
