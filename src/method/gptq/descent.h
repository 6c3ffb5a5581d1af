// Codes of a block type changed one at a time, where that lowers the error of the layer.
#pragma once

#include <cstdint>
#include <span>

#include "encoding/block_grid.h"

namespace nibble::method::gptq {

// One row: `blocks` decode to values v of which w - v is the error, weights: (cols), gram: (cols, cols). Lowers
// (w - v) gram (w - v)ᵀ by changing one code after the other in `passes` passes; scales and mins stay. Ends early when
// a pass changes nothing. gradient: (cols), (v - w) gram; it is kept up to date.
void descend(const encoding::BlockGrid& grid, std::span<encoding::BlockFields> blocks, const float* gram, int passes,
             float* gradient);

// The code whose level is nearest to `level`, and the level of a code.
int nearest_code(const encoding::BlockGrid& grid, float level);
inline float level_of(const encoding::BlockGrid& grid, int code) {
  return static_cast<float>(grid.table != nullptr ? grid.table[code] : code);
}

}  // namespace nibble::method::gptq
