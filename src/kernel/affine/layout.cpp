#include "kernel/affine/layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "encoding/affine.h"
#include "tensor/half.h"

namespace nibble::kernel::affine {

namespace {

std::int64_t round_up(std::int64_t value) { return (value + 63) / 64 * 64; }

int planes_index(int bits) {
  const int held = bits == 7 ? 8 : bits;
  return static_cast<int>(
      std::find_if(kPlanes, kPlanes + kPlanesCount, [&](CodePlanes p) { return bits_of(p) == held; }) - kPlanes);
}

// The list before the panels: the order of the columns, or those that are kept.
std::int64_t list_bytes(const encoding::EncodingInfo& info, std::int64_t cols) {
  return round_up((info.affine.group_index ? cols : info.affine.kept) * 4);
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
      fail(ErrorCode::kFormat, "row {}: the scale of group {} is NaN or infinite", row, g);
    }
    encoding::store_scale_zero(params, at, panel, panel + geometry.zeros_at, g * kPanelRows + lane);
  }
}

// The sum of the values of a row, whose codes come in the order of the panel.
void pack_row_sum(const encoding::AffineParams& params, const Geometry& geometry, const std::uint8_t* code, int lane,
                  std::byte* panel) {
  const int offset = encoding::stored_offset(params);
  double sum = 0;
  for (std::int64_t begin = 0; begin < geometry.blocks; begin += geometry.group_blocks) {
    const std::int64_t end = std::min(begin + geometry.group_blocks, geometry.blocks);
    const encoding::ScaleZero at = encoding::load_scale_zero(params, panel, panel + geometry.zeros_at,
                                                             begin / geometry.group_blocks * kPanelRows + lane);
    const std::int64_t levels = std::accumulate(code + begin * kBlock, code + end * kBlock, std::int64_t{0});
    sum += static_cast<double>(at.scale) * static_cast<double>(levels - (end - begin) * kBlock * (offset + at.zero));
  }
  const auto rounded = static_cast<float>(sum);
  std::memcpy(panel + geometry.row_sums_at + lane * 4, &rounded, 4);
}

// The kept weights of a row.
void pack_kept(const TensorView& weights, const Geometry& geometry, std::int64_t row, int lane, std::byte* panel) {
  if (geometry.kept == 0) return;
  const std::byte* values = weights.part(PartRole::kOutliers).bytes.data() + row * geometry.kept * 2;
  for (std::int64_t i = 0; i < geometry.kept; ++i, values += 2) {
    float value;
    convert_f16_to_f32(values, &value, 1);
    if (!std::isfinite(value)) fail(ErrorCode::kFormat, "row {}: kept weight {} is NaN or infinite", row, i);
    std::memcpy(panel + geometry.kept_at + (i * kPanelRows + lane) * 2, values, 2);
  }
}

// Codes of rows, in the order of the panel.
class CodeReader {
 public:
  explicit CodeReader(const TensorView& weights)
      : weights_(weights), stride_(encoding::row_code_bytes(weights.encoding->affine, weights.cols())) {
    codes_.resize(static_cast<std::size_t>(weights.cols()));
    if (!weights.encoding->affine.group_index) return;
    columns_ = encoding::columns_by_group(weights);
    sorted_.resize(codes_.size());
  }

  // (cols)
  const std::uint8_t* read(std::int64_t row) {
    const std::byte* src = weights_.data().data() + static_cast<std::uint64_t>(row) * stride_;
    encoding::unpack_codes(weights_.encoding->affine.bits, src, weights_.cols(), codes_.data());
    drop_kept(row);
    if (columns_.empty()) return codes_.data();
    for (std::size_t i = 0; i < sorted_.size(); ++i) sorted_[i] = codes_[static_cast<std::size_t>(columns_[i])];
    return sorted_.data();
  }

 private:
  // Columns that lie beside the codes get the code of zero.
  void drop_kept(std::int64_t row) {
    const encoding::AffineParams& params = weights_.encoding->affine;
    if (params.kept == 0) return;
    const std::int64_t group = encoding::group_columns(params, weights_.cols());
    const std::int64_t first = params.granularity == encoding::Granularity::kTensor
                                   ? 0
                                   : row * encoding::groups_per_row(params, weights_.cols());
    const std::byte* scales = weights_.part(PartRole::kScales).bytes.data();
    const std::byte* zeros = params.symmetric ? nullptr : weights_.part(PartRole::kZeros).bytes.data();
    const ColumnList kept = {weights_.part(PartRole::kOutlierColumns).bytes};
    for (std::int64_t i = 0; i < kept.size(); ++i) {
      const std::int32_t c = kept[i];
      const int zero = encoding::load_scale_zero(params, scales, zeros, first + c / group).zero;
      codes_[static_cast<std::size_t>(c)] = static_cast<std::uint8_t>(zero + encoding::stored_offset(params));
    }
  }

  const TensorView& weights_;
  std::uint64_t stride_;
  std::vector<std::int32_t> columns_;
  std::vector<std::uint8_t> codes_, sorted_;
};

}  // namespace

bool accepts(const encoding::EncodingInfo& info, std::int64_t cols) {
  return accepts_kept(info, cols) && info.affine.kept == 0;
}

bool accepts_kept(const encoding::EncodingInfo& info, std::int64_t cols) {
  return info.family == encoding::Family::kAffine && cols > 0 && cols % kBlock == 0 &&
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
  geometry.row_sums_at = geometry.zeros_at + (params.symmetric ? 0 : round_up(entries));
  geometry.kept = params.kept;
  geometry.kept_at = geometry.row_sums_at + kPanelRows * 4;
  geometry.codes_at = geometry.kept_at + round_up(params.kept * kPanelRows * 2);
  geometry.bytes = geometry.codes_at + geometry.blocks * block_bytes(kPlanes[geometry.planes]);
  return geometry;
}

std::uint64_t packed_bytes(const MatrixInfo& matrix) {
  const auto panels = static_cast<std::uint64_t>((matrix.rows + kPanelRows - 1) / kPanelRows);
  return checked_add(checked_mul(panels, static_cast<std::uint64_t>(geometry_of(*matrix.encoding, matrix.cols).bytes)),
                     static_cast<std::uint64_t>(list_bytes(*matrix.encoding, matrix.cols)));
}

const std::byte* panels_of(const MatrixInfo& matrix, const std::byte* packed) noexcept {
  return packed + list_bytes(*matrix.encoding, matrix.cols);
}

const std::int32_t* column_order(const MatrixInfo& matrix, const std::byte* packed) noexcept {
  return matrix.encoding->affine.group_index ? reinterpret_cast<const std::int32_t*>(packed) : nullptr;
}

void pack(const TensorView& weights, const std::int32_t* row_map, std::int64_t row_begin, std::int64_t row_end,
          std::byte* packed) {
  const Geometry geometry = geometry_of(*weights.encoding, weights.cols());
  const CodePlanes planes = kPlanes[geometry.planes];
  if (weights.encoding->affine.group_index && row_begin == 0) {
    const std::vector<std::int32_t> columns = encoding::columns_by_group(weights);
    std::memcpy(packed, columns.data(), columns.size() * 4);
  }
  if (weights.encoding->affine.kept > 0 && row_begin == 0)
    std::ranges::copy(weights.part(PartRole::kOutlierColumns).bytes, packed);
  packed += list_bytes(*weights.encoding, weights.cols());
  CodeReader codes(weights);
  for (std::int64_t first = row_begin; first < row_end; first += kPanelRows) {
    std::byte* panel = packed + first / kPanelRows * geometry.bytes;
    std::memset(panel, 0, static_cast<std::size_t>(geometry.bytes));
    const int rows = static_cast<int>(std::min<std::int64_t>(kPanelRows, row_end - first));
    for (int lane = 0; lane < rows; ++lane) {
      const std::int64_t row = row_map != nullptr ? row_map[first + lane] : first + lane;
      pack_header(weights, geometry, row, lane, panel);
      const std::uint8_t* code = codes.read(row);
      pack_row_sum(weights.encoding->affine, geometry, code, lane, panel);
      pack_kept(weights, geometry, row, lane, panel);
      auto* block = reinterpret_cast<std::uint8_t*>(panel + geometry.codes_at);
      for (std::int64_t b = 0; b < geometry.blocks; ++b, code += kBlock, block += block_bytes(planes))
        store_codes(planes, code, lane, block);
    }
  }
}

void unpack_row(const MatrixInfo& matrix, const std::byte* packed, std::int64_t row, float* out) noexcept {
  const encoding::AffineParams& params = matrix.encoding->affine;
  const Geometry geometry = geometry_of(*matrix.encoding, matrix.cols);
  const CodePlanes planes = kPlanes[geometry.planes];
  const std::int32_t* columns = column_order(matrix, packed);
  const std::byte* panel = panels_of(matrix, packed) + row / kPanelRows * geometry.bytes;
  const auto* block = reinterpret_cast<const std::uint8_t*>(panel + geometry.codes_at);
  const int lane = static_cast<int>(row % kPanelRows);
  const int offset = encoding::stored_offset(params);
  std::uint8_t code[kBlock];
  for (std::int64_t b = 0; b < geometry.blocks; ++b, block += block_bytes(planes)) {
    const encoding::ScaleZero at = encoding::load_scale_zero(params, panel, panel + geometry.zeros_at,
                                                             b / geometry.group_blocks * kPanelRows + lane);
    load_codes(planes, block, lane, code);
    for (std::int64_t i = 0; i < kBlock; ++i) {
      const std::int64_t c = b * kBlock + i;
      out[columns != nullptr ? columns[c] : c] = encoding::decode_code(code[i] - offset, at);
    }
  }
  const auto* kept = reinterpret_cast<const std::int32_t*>(packed);
  for (std::int64_t i = 0; i < geometry.kept; ++i)
    convert_f16_to_f32(panel + geometry.kept_at + (i * kPanelRows + lane) * 2, out + kept[i], 1);
}

}  // namespace nibble::kernel::affine
