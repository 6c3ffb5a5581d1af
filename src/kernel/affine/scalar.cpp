// The plain path: what panel.h says, row by row.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernel/affine/panel.h"
#include "tensor/half.h"

namespace nibble::kernel::affine {

namespace {

float load_scale(ScaleType type, const std::uint8_t* panel, std::int64_t index) {
  if (type == ScaleType::kF32) {
    float scale;
    std::memcpy(&scale, panel + index * 4, 4);
    return scale;
  }
  std::uint16_t half;
  std::memcpy(&half, panel + index * 2, 2);
  return type == ScaleType::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
}

// Codes of one row for blocks [begin, end) of a panel.
void load_part(const Geometry& geometry, const std::uint8_t* panel, int lane, std::int64_t begin, std::int64_t end,
               std::uint8_t* code) {
  const CodePlanes planes = kPlanes[geometry.planes];
  const std::uint8_t* block = panel + geometry.codes_at + begin * block_bytes(planes);
  for (std::int64_t b = begin; b < end; ++b, block += block_bytes(planes), code += kBlock) {
    load_codes(planes, block, lane, code);
  }
}

// Those times one token.
float part_sum(const Job& job, const std::uint8_t* code, int zero, std::int64_t token, std::int64_t begin,
               std::int64_t end) {
  const std::uint8_t* activations = job.activations.rows + token * job.activations.stride;
  const auto* a = reinterpret_cast<const std::int8_t*>(activations) + begin * kBlock;
  const auto* a_scale = reinterpret_cast<const float*>(activations + job.activations.scales_at);
  float s = 0;
  for (std::int64_t b = begin; b < end; ++b, code += kBlock, a += kBlock) {
    std::int32_t dot = 0;
    for (int i = 0; i < kBlock; ++i) dot += (code[i] - zero) * a[i];
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
      const std::int64_t group = begin / geometry.group_blocks;
      const std::int64_t end = part_end(geometry, begin);
      const std::int64_t at = group * kPanelRows + lane;
      const float scale = load_scale(job.scale_type, panel, at);
      const int zero = job.zero >= 0 ? job.zero : panel[geometry.zeros_at + at];
      load_part(geometry, panel, lane, begin, end, code);
      for (std::int64_t t = 0; t < job.n; ++t) {
        float& y = job.out[t * job.ldo + row];
        y = std::fma(part_sum(job, code, zero, t, begin, end), scale, y);
      }
      begin = end;
    }
  }
}

namespace {

// A row and what its parts and columns are worth.
struct Row {
  const RowsJob& job;
  const std::uint8_t* panel;
  int lane;

  float scale(std::int64_t group) const { return load_scale(job.scale_type, panel, group * kPanelRows + lane); }
  int zero(std::int64_t group) const {
    return job.zero >= 0 ? job.zero : panel[job.geometry.zeros_at + group * kPanelRows + lane];
  }
  float beside(std::int64_t i) const {
    std::uint16_t half;
    std::memcpy(&half, panel + job.geometry.kept_at + (i * kPanelRows + lane) * 2, 2);
    return f16_to_f32(half);
  }
  float value(std::int64_t column) const {
    const std::int64_t block = column / kBlock, group = block / job.geometry.group_blocks;
    std::uint8_t code[kBlock];
    load_part(job.geometry, panel, lane, block, block + 1, code);
    return scale(group) * static_cast<float>(code[column % kBlock] - zero(group));
  }
};

// From the sum over the parts to the output.
float finish(const Row& row, std::int64_t token, float y) {
  const I8Rows& a = row.job.activations;
  const I8RowHeader& header = header_of(a, token);
  float row_sum;
  std::memcpy(&row_sum, row.panel + row.job.geometry.row_sums_at + row.lane * 4, 4);
  float kept = 0;
  for (std::int64_t i = 0; i < header.kept; ++i) {
    const float value = i < row.job.geometry.kept ? row.beside(i) : row.value(kept_columns(a, token)[i]);
    kept = std::fma(kept_values(a, token)[i], value, kept);
  }
  return std::fma(std::fma(-header.zero, row_sum, y), header.scale, kept);
}

}  // namespace

void compute_rows_scalar(const RowsJob& job) noexcept {
  const Geometry& geometry = job.geometry;
  const I8Rows& a = job.activations;
  std::uint8_t code[kStretchBlocks * kBlock];
  for (std::int64_t r = job.row_begin; r < job.row_end; ++r) {
    const Row row{job, job.packed + r / kPanelRows * geometry.bytes, static_cast<int>(r % kPanelRows)};
    for (std::int64_t t = 0; t < job.n; ++t) job.out[t * job.ldo + r] = 0;
    for (std::int64_t begin = 0; begin < geometry.blocks; begin = part_end(geometry, begin)) {
      const std::int64_t group = begin / geometry.group_blocks, n = (part_end(geometry, begin) - begin) * kBlock;
      load_part(geometry, row.panel, row.lane, begin, part_end(geometry, begin), code);
      for (std::int64_t t = 0; t < job.n; ++t) {
        const auto* x = reinterpret_cast<const std::int8_t*>(a.rows + t * a.stride) + begin * kBlock;
        std::int32_t dot = 0;
        for (std::int64_t i = 0; i < n; ++i) dot += (code[i] - row.zero(group)) * x[i];
        float& y = job.out[t * job.ldo + r];
        y = std::fma(static_cast<float>(dot), row.scale(group), y);
      }
    }
    for (std::int64_t t = 0; t < job.n; ++t) job.out[t * job.ldo + r] = finish(row, t, job.out[t * job.ldo + r]);
  }
}

}  // namespace nibble::kernel::affine
