#include "method/level.h"

#include <algorithm>
#include <cmath>

namespace nibble::method {

using encoding::BlockGrid;

int nearest_code(const BlockGrid& grid, float level) {
  if (grid.table == nullptr) {
    const float held = std::clamp(level, static_cast<float>(grid.code_min), static_cast<float>(grid.code_max));
    return static_cast<int>(std::nearbyint(held));
  }
  const std::int8_t* end = grid.table + grid.code_max + 1;
  const std::int8_t* above = std::lower_bound(grid.table, end, level);
  if (above == grid.table) return 0;
  if (above == end) return grid.code_max;
  const bool upper = static_cast<float>(*above) - level < level - static_cast<float>(above[-1]);
  return static_cast<int>(above - grid.table) - (upper ? 0 : 1);
}

std::array<float, 64> level_cells(const BlockGrid& grid) {
  std::array<float, 64> cells{};
  for (std::size_t cell = 0; cell < 32; ++cell) {
    const float from = -128.0f + 8.0f * static_cast<float>(cell);
    cells[cell] = level_of(grid, nearest_code(grid, from));
    cells[32 + cell] = level_of(grid, nearest_code(grid, from + 8.0f));
  }
  return cells;
}

}  // namespace nibble::method
