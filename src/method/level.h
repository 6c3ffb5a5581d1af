// Codes and levels of the block types.
#pragma once

#include <array>

#include "encoding/block_grid.h"

namespace nibble::method {

inline float level_of(const encoding::BlockGrid& grid, int code) {
  return static_cast<float>(grid.table != nullptr ? grid.table[code] : code);
}
// The code whose level is nearest; of two as near, the lower for a type with a table, else the even one.
int nearest_code(const encoding::BlockGrid& grid, float level);

// Of a type with a table: for a level t in [-128, 128), cell floor((t + 128) / 8) has the two levels that may be
// nearest, first the 32 lower ones, then the 32 upper ones.
std::array<float, 64> level_cells(const encoding::BlockGrid& grid);

}  // namespace nibble::method
