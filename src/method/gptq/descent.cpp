#include "method/gptq/descent.h"

#include <algorithm>
#include <cmath>

namespace nibble::method::gptq {

using encoding::BlockFields;
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
  const bool lower = level - static_cast<float>(above[-1]) < static_cast<float>(*above) - level;
  return static_cast<int>(above - grid.table) - (lower ? 1 : 0);
}

void descend(const BlockGrid& grid, std::span<BlockFields> blocks, const float* gram, int passes, float* gradient) {
  const auto cols = static_cast<std::int64_t>(blocks.size()) * grid.block;
  for (int pass = 0; pass < passes; ++pass) {
    bool changed = false;
    for (std::int64_t at = 0; at < cols; ++at) {
      BlockFields& fields = blocks[static_cast<std::size_t>(at / grid.block)];
      const std::int64_t e = at % grid.block;
      const float step = fields.d * static_cast<float>(fields.scale[e / grid.sub]);
      const float* row = gram + at * cols;
      if (step == 0 || !(row[at] > 0)) continue;
      const float level = level_of(grid, fields.code[e]);
      const int code = nearest_code(grid, level - gradient[at] / row[at] / step);
      if (code == fields.code[e]) continue;
      const float change = step * (level_of(grid, code) - level);
      if (change * (2 * gradient[at] + change * row[at]) >= 0) continue;
      fields.code[e] = static_cast<std::int8_t>(code);
      for (std::int64_t c = 0; c < cols; ++c) gradient[c] += change * row[c];
      changed = true;
    }
    if (!changed) return;
  }
}

}  // namespace nibble::method::gptq
