#include "kernel/blocks/layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "encoding/block_grid.h"
#include "encoding/e2m1.h"
#include "encoding/scaled.h"
#include "tensor/half.h"

namespace nibble::kernel::blocks {

namespace {

constexpr int kSuperColumns = kSuperBlocks * kBlock;

std::uint64_t super_bytes(const Format& format) {
  return static_cast<std::uint64_t>(format.header_bytes + kSuperBlocks * format.block_bytes);
}

std::uint16_t load_u16(const std::uint8_t* src) {
  std::uint16_t value;
  std::memcpy(&value, src, 2);
  return value;
}

void store_f16(std::uint8_t* dst, float value) {
  const std::uint16_t half = f32_to_f16(value);
  std::memcpy(dst, &half, 2);
}

// One super-block of one row: unsigned codes and the numbers of its scales.
struct SuperRow {
  std::uint8_t code[kSuperColumns];
  float d[kSuperBlocks];  // f16 scales: per block; super scales: [0]
  float dmin[kSuperBlocks];
  std::uint8_t scale[16];  // super scales; E8M0: per block
  std::uint8_t min[16];
  encoding::BlockFields fields;  // work memory: setting all of it costs more than a small block
};

// Columns [col, col + columns) of a row of mxfp4 or, with the scales apart and neighbours in a byte, mxfp4-hf.
void read_e2m1_row(const TensorView& weights, std::int64_t row, std::int64_t col, int columns, SuperRow& out) {
  const encoding::EncodingInfo& info = *weights.encoding;
  if (info.family == encoding::Family::kScaled) {
    const encoding::ScaledRow at = encoding::scaled_row(weights, row);
    const auto* pairs = reinterpret_cast<const std::uint8_t*>(at.codes + col / 2);
    std::memcpy(out.scale, at.scales + col / kBlock, static_cast<std::size_t>(columns / kBlock));
    for (int i = 0; i < columns / 2; ++i) {
      out.code[2 * i] = pairs[i] & 15;
      out.code[2 * i + 1] = pairs[i] >> 4;
    }
    return;
  }
  const auto* src = reinterpret_cast<const std::uint8_t*>(weights.data().data()) +
                    (row * weights.cols() + col) / kBlock * info.block_bytes;
  for (int b = 0; b < columns / kBlock; ++b, src += info.block_bytes) {
    out.scale[b] = src[0];
    for (int i = 0; i < kBlock / 2; ++i) {
      out.code[b * kBlock + i] = src[1 + i] & 15;
      out.code[b * kBlock + kBlock / 2 + i] = src[1 + i] >> 4;
    }
  }
}

void read_super_row(const TensorView& weights, const Format& format, std::int64_t row, std::int64_t col, int columns,
                    SuperRow& out) {
  if (format.e2m1) return read_e2m1_row(weights, row, col, columns, out);
  const encoding::BlockGrid& grid = *weights.encoding->grid;
  const int block_bytes = weights.encoding->block_bytes;
  const std::byte* src = weights.data().data() + (row * weights.cols() + col) / grid.block * block_bytes;
  encoding::BlockFields& fields = out.fields;
  const int block = grid.block;  // in a register: codes are bytes, which may alias anything
  const int shift = format.table ? 0 : format.offset;
  for (int at = 0, i = 0; at < columns; at += block, ++i, src += block_bytes) {
    grid.unpack(src, fields);
    out.d[i] = fields.d;
    out.dmin[i] = fields.dmin;
    for (int e = 0; e < block; ++e) out.code[at + e] = static_cast<std::uint8_t>(fields.code[e] + shift);
  }
  if (format.super_scales) {
    std::memcpy(out.scale, fields.scale, sizeof(out.scale));
    std::memcpy(out.min, fields.min, sizeof(out.min));
  }
}

// Is every weight a number? A scale of 255 is none, and the largest codes do not hold beside the largest scales.
bool e2m1_is_finite(const SuperRow& row, int blocks) {
  for (int b = 0; b < blocks; ++b) {
    if (row.scale[b] < 253) continue;
    if (row.scale[b] == 255) return false;
    for (int i = 0; i < kBlock; ++i) {
      const auto level = static_cast<float>(encoding::kE2m1Doubled[row.code[b * kBlock + i]]);
      if (!std::isfinite(level * encoding::half_e8m0(row.scale[b]))) return false;
    }
  }
  return true;
}

bool is_finite(const Format& format, const SuperRow& row, int blocks) {
  if (format.e2m1) return e2m1_is_finite(row, blocks);
  bool finite = true;
  for (int i = 0; i < kSuperBlocks; ++i) finite &= std::isfinite(row.d[i]) && std::isfinite(row.dmin[i]);
  return finite;
}

void write_header(const Format& format, const SuperRow& src, int blocks, int row, std::uint8_t* header) {
  if (format.e2m1) {
    for (int b = 0; b < blocks; ++b) header[b * kPanelRows + row] = src.scale[b];
    return;
  }
  if (!format.super_scales) {
    for (int b = 0; b < blocks; ++b) {
      store_f16(header + (b * kPanelRows + row) * 2, src.d[b]);
      if (format.has_min) store_f16(header + format.mins_at + (b * kPanelRows + row) * 2, src.dmin[b]);
    }
    return;
  }
  store_f16(header + row * 2, src.d[0]);
  if (format.has_min) store_f16(header + 32 + row * 2, src.dmin[0]);
  for (int s = 0; s < kSuperColumns / format.sub; ++s) {
    const int at = s * kPanelRows + row;
    if (format.nibble_scales) {
      header[format.scales_at + at] = static_cast<std::uint8_t>(src.scale[s] | src.min[s] << 4);
    } else {
      header[format.scales_at + at] = src.scale[s];
      if (format.has_min) header[format.mins_at + at] = src.min[s];
    }
  }
}

bool is_e2m1(const encoding::EncodingInfo& info) { return info.name == "mxfp4" || info.name == "mxfp4-hf"; }
constexpr int kE2m1Format = static_cast<int>(
    std::find_if(kFormats, kFormats + kFormatCount, [](const Format& f) { return f.e2m1; }) - kFormats);

const std::uint8_t* super_at(const Format& format, const std::byte* packed, std::int64_t cols, std::int64_t row,
                             std::int64_t super) {
  const std::byte* panel = packed + static_cast<std::uint64_t>(row / kPanelRows) * panel_bytes(format, cols);
  return reinterpret_cast<const std::uint8_t*>(panel) + static_cast<std::uint64_t>(super) * super_bytes(format);
}

}  // namespace

int format_index(const encoding::EncodingInfo& encoding) {
  const encoding::BlockGrid* grid = encoding.grid;
  if (grid == nullptr) return is_e2m1(encoding) ? kE2m1Format : -1;
  const int levels = grid->code_max - grid->code_min + 1;
  for (int i = 0; i < kFormatCount; ++i) {
    const Format& f = kFormats[i];
    if (f.e2m1) continue;
    const int codes = 1 << (f.low_bits + f.high_bits);
    const bool same_codes = f.table ? grid->table != nullptr && grid->code_min == 0 && levels == codes
                                    : grid->table == nullptr && levels <= codes && levels > codes / 2 &&
                                          grid->code_min >= -f.offset && grid->code_max < codes - f.offset;
    const bool same_scales = (grid->block == kSuperColumns) == f.super_scales && grid->sub == f.sub &&
                             grid->has_min == f.has_min &&
                             (!f.nibble_scales || (grid->scale_max < 16 && grid->min_max < 16));
    if (same_codes && same_scales) return i;
  }
  return -1;
}

const std::int8_t* level_table(const encoding::EncodingInfo& encoding) {
  return encoding.grid == nullptr ? encoding::kE2m1Doubled : encoding.grid->table;
}

std::uint64_t panel_bytes(const Format& format, std::int64_t cols) {
  const auto blocks = static_cast<std::uint64_t>(cols / kBlock);
  std::uint64_t bytes = checked_mul(blocks / kSuperBlocks, super_bytes(format));
  const std::uint64_t rest = blocks % kSuperBlocks;
  if (rest > 0) {
    bytes += static_cast<std::uint64_t>(format.header_bytes) + rest * static_cast<std::uint64_t>(format.block_bytes);
  }
  return bytes;
}

std::uint64_t packed_bytes(const MatrixInfo& matrix) {
  const auto panels = static_cast<std::uint64_t>((matrix.rows + kPanelRows - 1) / kPanelRows);
  return checked_mul(panels, panel_bytes(kFormats[format_index(*matrix.encoding)], matrix.cols));
}

void pack(const TensorView& weights, const std::int32_t* row_map, std::int64_t row_begin, std::int64_t row_end,
          std::byte* packed) {
  const encoding::EncodingInfo& info = *weights.encoding;
  const Format& format = kFormats[format_index(info)];
  const std::int64_t cols = weights.cols();
  const std::uint64_t panel_stride = panel_bytes(format, cols);
  SuperRow super_row{};
  for (std::int64_t first = row_begin; first < row_end; first += kPanelRows) {
    auto* dst = reinterpret_cast<std::uint8_t*>(packed) + static_cast<std::uint64_t>(first / kPanelRows) * panel_stride;
    std::memset(dst, 0, panel_stride);
    const int rows = static_cast<int>(std::min<std::int64_t>(kPanelRows, row_end - first));
    for (std::int64_t col = 0; col < cols; col += kSuperColumns) {
      const int columns = static_cast<int>(std::min<std::int64_t>(kSuperColumns, cols - col));
      for (int r = 0; r < rows; ++r) {
        const std::int64_t source = row_map != nullptr ? row_map[first + r] : first + r;
        read_super_row(weights, format, source, col, columns, super_row);
        if (!is_finite(format, super_row, columns / kBlock)) {
          fail(ErrorCode::kFormat, "row {}, columns from {}: {} of a block is NaN or infinite", source, col,
               format.e2m1 ? "a weight or the scale" : "the scale");
        }
        write_header(format, super_row, columns / kBlock, r, dst);
        for (int b = 0; b < columns / kBlock; ++b) {
          store_codes(format.planes(), super_row.code + b * kBlock, r,
                      dst + format.header_bytes + b * format.block_bytes);
        }
      }
      dst += super_bytes(format);
    }
  }
}

SubScale sub_scale(const Format& format, const std::uint8_t* header, int sub, int row) noexcept {
  const int at = sub * kPanelRows + row;
  if (format.e2m1) return {encoding::half_e8m0(header[at]), 0.0f};
  if (!format.super_scales) {
    return {f16_to_f32(load_u16(header + at * 2)),
            format.has_min ? f16_to_f32(load_u16(header + format.mins_at + at * 2)) : 0.0f};
  }
  const float d = f16_to_f32(load_u16(header + row * 2));
  const std::uint8_t scale = header[format.scales_at + at];
  if (!format.has_min) return {d * static_cast<float>(static_cast<std::int8_t>(scale)), 0.0f};
  const float dmin = f16_to_f32(load_u16(header + 32 + row * 2));
  const int min = format.nibble_scales ? scale >> 4 : header[format.mins_at + at];
  return {d * static_cast<float>(format.nibble_scales ? scale & 15 : scale), dmin * static_cast<float>(min)};
}

void unpack_row(const MatrixInfo& matrix, const std::byte* packed, std::int64_t row, float* out) noexcept {
  const Format& format = kFormats[format_index(*matrix.encoding)];
  const std::int8_t* table = level_table(*matrix.encoding);
  const bool has_negative_zero = matrix.encoding->family == encoding::Family::kScaled;  // as decode_scaled() gives it
  const int lane = static_cast<int>(row % kPanelRows);
  std::uint8_t code[kBlock];
  for (std::int64_t b = 0; b < matrix.cols / kBlock; ++b) {
    const std::uint8_t* header = super_at(format, packed, matrix.cols, row, b / kSuperBlocks);
    const int in_super = static_cast<int>(b % kSuperBlocks);
    load_codes(format.planes(), header + format.header_bytes + in_super * format.block_bytes, lane, code);
    for (int c = 0; c < kBlock; ++c) {
      const SubScale s = sub_scale(format, header, (in_super * kBlock + c) / format.sub, lane);
      const int level = table != nullptr ? table[code[c]] : code[c] - format.offset;
      const float product = s.scale * (has_negative_zero && code[c] == 8 ? -0.0f : static_cast<float>(level));
      *out++ = format.has_min ? product - s.min : product;
    }
  }
}

}  // namespace nibble::kernel::blocks
