#include "kernel/affine/layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "encoding/affine.h"

namespace nibble::kernel::affine {

namespace {

std::int64_t round_up(std::int64_t value) { return (value + 63) / 64 * 64; }

int planes_index(int bits) {
  const int held = bits == 7 ? 8 : bits;
  return static_cast<int>(
      std::find_if(kPlanes, kPlanes + kPlanesCount, [&](CodePlanes p) { return bits_of(p) == held; }) - kPlanes);
}

// Scales and zeros of one row, into lane `lane` of the header.
void pack_header(const TensorView& weights, const Geometry& geometry, std::int64_t row, int lane, std::byte* panel) {
  const encoding::AffineParams& params = weights.encoding->affine;
  const std::byte* scales = weights.part(PartRole::kScales).bytes.data();
  const std::byte* zeros = params.symmetric ? nullptr : weights.part(PartRole::kZeros).bytes.data();
  const std::int64_t groups = encoding::groups_per_row(params, weights.cols());
  const std::int64_t first = params.granularity == encoding::Granularity::kTensor ? 0 : row * groups;
  for (std::int64_t g = 0; g < groups; ++g) {
    const encoding::ScaleZero at = encoding::load_scale_zero(params, scales, zeros, first + g);
    if (!std::isfinite(at.scale)) {
      fail(ErrorCode::kFormat, "row {}, columns from {}: the scale of a group is NaN or infinite", row,
           g * geometry.group_blocks * kBlock);
    }
    encoding::store_scale_zero(params, at, panel, panel + geometry.zeros_at, g * kPanelRows + lane);
  }
}

// The (zeroed) codes of one row.
void pack_codes(const TensorView& weights, const Geometry& geometry, std::int64_t row, int lane, std::byte* panel) {
  const int bits = weights.encoding->affine.bits;
  const CodePlanes planes = kPlanes[geometry.planes];
  const std::uint64_t stride = encoding::row_code_bytes(weights.encoding->affine, weights.cols());
  const std::byte* src = weights.data().data() + static_cast<std::uint64_t>(row) * stride;
  auto* dst = reinterpret_cast<std::uint8_t*>(panel + geometry.codes_at);
  std::uint8_t code[kStretchBlocks * kBlock];
  for (std::int64_t begin = 0; begin < geometry.blocks; begin += kStretchBlocks) {
    const std::int64_t count = std::min<std::int64_t>(kStretchBlocks, geometry.blocks - begin);
    encoding::unpack_codes(bits, src + begin * kBlock * bits / 8, count * kBlock, code);
    for (std::int64_t b = 0; b < count; ++b, dst += block_bytes(planes)) {
      store_codes(planes, code + b * kBlock, lane, dst);
    }
  }
}

}  // namespace

bool accepts(const encoding::EncodingInfo& info, std::int64_t cols) {
  return info.family == encoding::Family::kAffine && !info.affine.group_index && cols > 0 && cols % kBlock == 0 &&
         encoding::group_columns(info.affine, cols) % kBlock == 0;
}

Geometry geometry_of(const encoding::EncodingInfo& info, std::int64_t cols) {
  const encoding::AffineParams& params = info.affine;
  const std::int64_t entries = encoding::groups_per_row(params, cols) * kPanelRows;
  Geometry geometry{};
  geometry.planes = planes_index(params.bits);
  geometry.blocks = cols / kBlock;
  geometry.group_blocks = encoding::group_columns(params, cols) / kBlock;
  geometry.zeros_at = round_up(entries * static_cast<std::int64_t>(dtype_bytes(params.scale_dtype)));
  geometry.codes_at = geometry.zeros_at + (params.symmetric ? 0 : round_up(entries));
  geometry.bytes = geometry.codes_at + geometry.blocks * block_bytes(kPlanes[geometry.planes]);
  return geometry;
}

std::uint64_t packed_bytes(const MatrixInfo& matrix) {
  const auto panels = static_cast<std::uint64_t>((matrix.rows + kPanelRows - 1) / kPanelRows);
  return checked_mul(panels, static_cast<std::uint64_t>(geometry_of(*matrix.encoding, matrix.cols).bytes));
}

void pack(const TensorView& weights, const std::int32_t* row_map, std::int64_t row_begin, std::int64_t row_end,
          std::byte* packed) {
  const Geometry geometry = geometry_of(*weights.encoding, weights.cols());
  for (std::int64_t first = row_begin; first < row_end; first += kPanelRows) {
    std::byte* panel = packed + first / kPanelRows * geometry.bytes;
    std::memset(panel, 0, static_cast<std::size_t>(geometry.bytes));
    const int rows = static_cast<int>(std::min<std::int64_t>(kPanelRows, row_end - first));
    for (int lane = 0; lane < rows; ++lane) {
      const std::int64_t row = row_map != nullptr ? row_map[first + lane] : first + lane;
      pack_header(weights, geometry, row, lane, panel);
      pack_codes(weights, geometry, row, lane, panel);
    }
  }
}

void unpack_row(const MatrixInfo& matrix, const std::byte* packed, std::int64_t row, float* out) noexcept {
  const encoding::AffineParams& params = matrix.encoding->affine;
  const Geometry geometry = geometry_of(*matrix.encoding, matrix.cols);
  const CodePlanes planes = kPlanes[geometry.planes];
  const std::byte* panel = packed + row / kPanelRows * geometry.bytes;
  const auto* block = reinterpret_cast<const std::uint8_t*>(panel + geometry.codes_at);
  const int lane = static_cast<int>(row % kPanelRows);
  const int offset = encoding::stored_offset(params);
  std::uint8_t code[kBlock];
  for (std::int64_t b = 0; b < geometry.blocks; ++b, block += block_bytes(planes)) {
    const encoding::ScaleZero at = encoding::load_scale_zero(params, panel, panel + geometry.zeros_at,
                                                             b / geometry.group_blocks * kPanelRows + lane);
    load_codes(planes, block, lane, code);
    for (const std::uint8_t stored : code) *out++ = encoding::decode_code(stored - offset, at);
  }
}

}  // namespace nibble::kernel::affine
