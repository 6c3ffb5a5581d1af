// The weighted scale fit of 16 sub-blocks at once: plain data between the driver (search.cpp) and its builds per
// instruction set.
#pragma once

#include <stdint.h>

namespace nibble::method::search {

constexpr int kLanes = 16;                 // sub-blocks of a batch, one per vector lane
constexpr int kMaxElements = kLanes * 32;  // of a batch

// An encoding as the fit sees it: value = d * scale * level - dmin * min (encoding/block_grid.h), and how hard to look.
struct Layout {
  int sub;             // elements of a sub-block
  int subs_per_block;  // 1: the sub-block is the block and `scale` is always 1
  bool has_min;
  float scale_min, scale_max;
  float min_max;
  float level_lo, level_hi;  // of the first and the last code
  // Non-linear levels: for t in [-128, 128) cell floor((t + 128) / 8) has the two levels that may be nearest, first the
  // 32 lower ones, then the 32 upper ones. Null when the levels are the codes.
  const float* cells;

  int n_coarse;                // real-valued scale candidates of a sub-block, spread so that ...
  float coarse_lo, coarse_hi;  // ... its largest magnitude meets the largest code + coarse_lo .. coarse_hi
  int n_mirrored;              // as many with the opposite sign (types without min)
  int n_polish;                // least-squares refits after them
  float super_lo, super_hi;    // the same for d and dmin over the sub-scales, relative to the largest sub-scale
  int n_scales;                // sub-scales tried around the nearest, best a multiple of 4
  int min_window;              // mins tried on either side
  int n_rounds;                // refits of d and dmin with everything else fixed
};

struct Batch {
  const float* x;                   // (16, sub): whole blocks one after another
  const float* importance[kLanes];  // (sub) of each lane
  float d[kLanes];                  // of the block each lane belongs to; representable in f16
  float dmin[kLanes];
  float scale[kLanes];
  float min[kLanes];
  int8_t level[kMaxElements];
};

using FitBatch = void (*)(const Layout& layout, Batch& batch) noexcept;

void fit_batch_scalar(const Layout& layout, Batch& batch) noexcept;
void fit_batch_avx2(const Layout& layout, Batch& batch) noexcept;
void fit_batch_avx512(const Layout& layout, Batch& batch) noexcept;

}  // namespace nibble::method::search
