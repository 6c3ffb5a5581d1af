#include <immintrin.h>
#include <stdint.h>

namespace nibble::method::search {
namespace {

constexpr int kWidth = 8;
constexpr int kCandidates = 2;
typedef float Vec __attribute__((vector_size(32)));
typedef float VecUnaligned __attribute__((vector_size(32), aligned(4)));
typedef int32_t Mask __attribute__((vector_size(32)));

inline Vec vmax(Vec a, Vec b) { return Vec(_mm256_max_ps(__m256(a), __m256(b))); }
inline Vec vmin(Vec a, Vec b) { return Vec(_mm256_min_ps(__m256(a), __m256(b))); }
// Entries `index` of a table of 32 floats; a gather takes longer.
inline __m256 lookup(const float* table, __m256i index) {
  const __m256 bit3 = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
  const __m256 bit4 = _mm256_castsi256_ps(_mm256_slli_epi32(index, 27));
  __m256 part[4];
  for (int i = 0; i < 4; ++i) part[i] = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8 * i), index);
  const __m256 low = _mm256_blendv_ps(part[0], part[1], bit3);
  return _mm256_blendv_ps(low, _mm256_blendv_ps(part[2], part[3], bit3), bit4);
}
inline void lookup_cells(const float* cells, Vec cell, Vec& below, Vec& above) {
  const __m256i index = _mm256_cvttps_epi32(__m256(cell));
  below = Vec(lookup(cells, index));
  above = Vec(lookup(cells + 32, index));
}
// kWidth integral values in [-128, 127] as bytes.
inline void store_levels(int8_t* dst, Vec levels) {
  const __m256i wide = _mm256_cvtps_epi32(__m256(levels));
  const __m128i pairs = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(dst), _mm_packs_epi16(pairs, pairs));
}

}  // namespace
}  // namespace nibble::method::search

#include "method/search/fit_kernel.h"

namespace nibble::method::search {
void fit_batch_avx2(const Layout& layout, Batch& batch) noexcept { fit_batch(layout, batch); }
}  // namespace nibble::method::search
