#include <immintrin.h>
#include <stdint.h>

namespace nibble::method::search {
namespace {

constexpr int kWidth = 8;
constexpr int kCandidates = 2;
typedef float Vec __attribute__((vector_size(32)));
typedef float VecUnaligned __attribute__((vector_size(32), aligned(4)));
typedef int32_t Mask __attribute__((vector_size(32)));
typedef int8_t Bytes __attribute__((vector_size(8)));

inline Vec vmax(Vec a, Vec b) { return Vec(_mm256_max_ps(__m256(a), __m256(b))); }
inline Vec vmin(Vec a, Vec b) { return Vec(_mm256_min_ps(__m256(a), __m256(b))); }
inline void lookup_cells(const float* cells, Vec cell, Vec& below, Vec& above) {
  const __m256i index = _mm256_cvttps_epi32(__m256(cell));
  below = Vec(_mm256_i32gather_ps(cells, index, 4));
  above = Vec(_mm256_i32gather_ps(cells + 32, index, 4));
}

}  // namespace
}  // namespace nibble::method::search

#include "method/search/fit_kernel.h"

namespace nibble::method::search {
void fit_batch_avx2(const Layout& layout, Batch& batch) noexcept { fit_batch(layout, batch); }
}  // namespace nibble::method::search
