#include "train/quantile_tables.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "encoding/codebook.h"

namespace nibble::train {

namespace {

// The greatest float that is not nearer to `above` than to `below`.
float border_between(float below, float above) {
  const double middle = (static_cast<double>(below) + static_cast<double>(above)) / 2;
  const auto nearest = static_cast<float>(middle);
  return static_cast<double>(nearest) > middle ? std::nextafter(nearest, 0.0f) : nearest;
}

QuantileTable make_table(const std::array<float, 256>& map) {
  QuantileTable table{};
  std::ranges::copy(map, table.level);
  table.zero = static_cast<std::int32_t>(std::ranges::find(map, 0.0f) - map.begin());
  const int n_levels = 256 - table.zero;  // of magnitudes
  std::ranges::fill(table.border, std::numeric_limits<float>::infinity());
  for (int i = 0; i + 1 < n_levels; ++i) {
    const float* level = table.level + table.zero + i;
    table.border[i] = border_between(level[0], level[1]);
  }
  int level = 0;
  for (std::int32_t bin = 1; bin < QuantileTable::kBins; ++bin) {  // bin 0 is all that is less, too
    const auto least = std::bit_cast<float>((bin + QuantileTable::kFirstBin) << 16);
    while (least > table.border[level]) ++level;
    table.lowest[bin] = static_cast<std::uint8_t>(level);
  }
  return table;
}

}  // namespace

const QuantileTable& signed_quantiles() {
  static const QuantileTable table = make_table(encoding::dynamic_map());
  return table;
}

const QuantileTable& unsigned_quantiles() {
  static const QuantileTable table = make_table(encoding::unsigned_dynamic_map());
  return table;
}

}  // namespace nibble::train
