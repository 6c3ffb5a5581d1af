// The plain path: what panel.h says, row by row.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernel/codebook/layout.h"
#include "kernel/codebook/panel.h"
#include "tensor/half.h"

namespace nibble::kernel::codebook {

namespace {

// The levels of one row in one group, and what they are multiplied by.
struct Table {
  std::int32_t level[kMaxLevels];
  float scale;
};

Table load_table(const Geometry& geometry, const std::uint8_t* group, int lane) {
  Table table{};
  std::memcpy(&table.scale, group + lane * 4, 4);
  if (geometry.levels != Levels::kCentroids) {
    const bool nf4 = geometry.levels == Levels::kNf4;
    for (int i = 0; i < kMaxLevels; ++i) table.level[i] = nf4 ? kNf4Levels[i] : kFp4Levels[i];
    table.scale *= 1.0f / (nf4 ? kNf4Unit : kFp4Unit);
    return table;
  }
  const int n = 1 << geometry.bits;
  const std::uint8_t* centroids = group + kPanelRows * 4 + (geometry.table_rows == 1 ? 0 : lane) * n * 2;
  const float inverse = 1.0f / table.scale;  // exact: a power of two
  for (int i = 0; i < n; ++i) {
    std::uint16_t half;
    std::memcpy(&half, centroids + 2 * i, 2);
    table.level[i] = static_cast<std::int32_t>(std::nearbyint(f16_to_f32(half) * inverse));
  }
  return table;
}

// Codes times one token.
float part_sum(const Job& job, const std::uint8_t* code, const Table& table, std::int64_t token, std::int64_t begin,
               std::int64_t end) {
  const std::uint8_t* activations = job.activations.rows + token * job.activations.stride;
  const auto* a = reinterpret_cast<const std::int8_t*>(activations) + begin * kBlock;
  const auto* a_scale = reinterpret_cast<const float*>(activations + job.activations.scales_at);
  float s = 0;
  for (std::int64_t b = begin; b < end; ++b, code += kBlock, a += kBlock) {
    std::int32_t dot = 0;
    for (int i = 0; i < kBlock; ++i) dot += table.level[code[i]] * a[i];
    s = std::fma(static_cast<float>(dot), a_scale[b], s);
  }
  return s;
}

}  // namespace

void compute_scalar(const Job& job) noexcept {
  const Geometry& geometry = job.geometry;
  std::uint8_t code[kStretchBlocks * kBlock];
  for (std::int64_t row = job.row_begin; row < job.row_end; ++row) {
    const int lane = static_cast<int>(row % kPanelRows);
    const std::uint8_t* panel = job.packed + row / kPanelRows * geometry.bytes;
    for (std::int64_t t = 0; t < job.n; ++t) job.out[t * job.ldo + row] = 0;
    for (std::int64_t begin = 0; begin < geometry.blocks;) {
      const std::int64_t end = part_end(geometry, begin);
      const Table table = load_table(geometry, panel + begin / geometry.group_blocks * geometry.group_bytes, lane);
      load_codes(geometry, panel + geometry.codes_at, lane, begin, end, code);
      for (std::int64_t t = 0; t < job.n; ++t) {
        float& y = job.out[t * job.ldo + row];
        y = std::fma(part_sum(job, code, table, t, begin, end), table.scale, y);
      }
      begin = end;
    }
  }
}

}  // namespace nibble::kernel::codebook
