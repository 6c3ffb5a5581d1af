#include <immintrin.h>
#include <stdint.h>

namespace nibble::method::search {
namespace {

constexpr int kWidth = 16;
constexpr int kCandidates = 4;
typedef float Vec __attribute__((vector_size(64)));
typedef float VecUnaligned __attribute__((vector_size(64), aligned(4)));
typedef int32_t Mask __attribute__((vector_size(64)));
typedef int8_t Bytes __attribute__((vector_size(16)));

inline Vec vmax(Vec a, Vec b) { return Vec(_mm512_max_ps(__m512(a), __m512(b))); }
inline Vec vmin(Vec a, Vec b) { return Vec(_mm512_min_ps(__m512(a), __m512(b))); }
// Entries floor(cell) of two tables of 32 floats, one after the other in memory.
inline void lookup_cells(const float* cells, Vec cell, Vec& below, Vec& above) {
  const __m512i index = _mm512_cvttps_epi32(__m512(cell));
  below = Vec(_mm512_permutex2var_ps(_mm512_load_ps(cells), index, _mm512_load_ps(cells + 16)));
  above = Vec(_mm512_permutex2var_ps(_mm512_load_ps(cells + 32), index, _mm512_load_ps(cells + 48)));
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
void fit_batch_avx512(const Layout& layout, Batch& batch) noexcept { fit_batch(layout, batch); }
}  // namespace nibble::method::search
