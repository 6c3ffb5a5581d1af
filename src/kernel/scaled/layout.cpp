#include "kernel/scaled/layout.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "encoding/affine.h"
#include "encoding/block_codec.h"
#include "encoding/float_code.h"
#include "encoding/scaled.h"

namespace nibble::kernel::scaled {

namespace {

using encoding::ScaledParams;

std::int64_t round_up(std::int64_t value) { return (value + 63) / 64 * 64; }

ScaleType scale_type(Dtype dtype) {
  return dtype == Dtype::kF32      ? ScaleType::kF32
         : dtype == Dtype::kF16    ? ScaleType::kF16
         : dtype == Dtype::kBf16   ? ScaleType::kBf16
         : dtype == Dtype::kF8E8m0 ? ScaleType::kE8m0
                                   : ScaleType::kE4m3;
}

// What the blocks of GGUF's nvfp4 are: nvfp4-hf without a scale for the matrix.
constexpr ScaledParams kNvfp4 = {encoding::FloatCode::kE2m1, 1, kHalfBlock, Dtype::kF8E4m3};
bool is_nvfp4(const encoding::EncodingInfo& info) { return info.name == "nvfp4"; }
const ScaledParams& params_of(const encoding::EncodingInfo& info) { return is_nvfp4(info) ? kNvfp4 : info.scaled; }

// In a panel no scale has a sign, and every one is a number: E4M3's NaN without its sign is 480.
float packed_scale(Dtype dtype, const std::byte* scales, std::int64_t index) {
  if (dtype != Dtype::kF8E4m3) return encoding::load_float_scale(dtype, scales, index);
  return f16_to_f32(static_cast<std::uint16_t>(encoding::load_u8(scales + index) << 7)) * 256;
}

// Of one row, codes a byte each and scales; `scales` has room for all of them.
encoding::ScaledRow read_nvfp4(const TensorView& weights, std::int64_t row, std::uint8_t* codes, std::byte* scales) {
  constexpr int kSubs = 4;  // each a scale and 8 bytes of codes, column j low and 8 + j high
  const encoding::EncodingInfo& info = *weights.encoding;
  const std::byte* block =
      weights.data().data() + static_cast<std::uint64_t>(row) * encoding::row_bytes(info, weights.cols());
  std::byte* scale = scales;
  for (std::int64_t c = 0; c < weights.cols(); c += info.block_elements, block += info.block_bytes) {
    for (int s = 0; s < kSubs; ++s, codes += kHalfBlock) {
      // GGML reads NaN as 0, and does not look at the sign.
      *scale++ = block[s] == std::byte{0x7F} ? std::byte{0} : block[s] & std::byte{0x7F};
      encoding::unpack_nibbles(block + kSubs + s * 8, 8, 0, reinterpret_cast<std::int8_t*>(codes));
    }
  }
  return {nullptr, scales};
}

// Scales of one row, into lane `lane` of the header.
void pack_header(const TensorView& weights, const Geometry& geometry, const encoding::ScaledRow& row, int lane,
                 std::byte* panel) {
  const ScaledParams& params = params_of(*weights.encoding);
  const auto size = static_cast<std::int64_t>(dtype_bytes(params.scale_dtype));
  for (std::int64_t g = 0; g < encoding::scales_per_row(params, weights.cols()); ++g)
    std::memcpy(panel + (g * kPanelRows + lane) * size, row.scales + g * size, static_cast<std::size_t>(size));
  if (geometry.has_global) std::memcpy(panel + geometry.globals_at + lane * 4, &row.global, 4);
}

}  // namespace

bool accepts(const encoding::EncodingInfo& info, std::int64_t cols) {
  if (is_nvfp4(info)) return cols > 0 && cols % info.block_elements == 0;
  return info.family == encoding::Family::kScaled && cols > 0 && cols % kBlock == 0 &&
         info.scaled.tile_cols % kHalfBlock == 0;
}

Geometry geometry_of(const encoding::EncodingInfo& info, std::int64_t cols) {
  const ScaledParams& params = params_of(info);
  const std::int64_t scales = encoding::scales_per_row(params, cols) * kPanelRows;
  Geometry geometry{};
  geometry.form = static_cast<Form>(params.code);
  geometry.scale_type = scale_type(params.scale_dtype);
  geometry.has_global = params.global_scale;
  geometry.halves = cols / kHalfBlock;
  geometry.group_halves = (params.tile_cols == 0 ? cols : params.tile_cols) / kHalfBlock;
  geometry.globals_at = round_up(scales * static_cast<std::int64_t>(dtype_bytes(params.scale_dtype)));
  geometry.codes_at = geometry.globals_at + (params.global_scale ? kPanelRows * 4 : 0);
  geometry.bytes = geometry.codes_at + cols * kPanelRows * kFloatBits[geometry.form].bits / 8;
  return geometry;
}

std::uint64_t packed_bytes(const MatrixInfo& matrix) {
  const auto panels = static_cast<std::uint64_t>((matrix.rows + kPanelRows - 1) / kPanelRows);
  return checked_mul(panels, static_cast<std::uint64_t>(geometry_of(*matrix.encoding, matrix.cols).bytes));
}

void pack(const TensorView& weights, const std::int32_t* row_map, std::int64_t row_begin, std::int64_t row_end,
          std::byte* packed) {
  const std::int64_t cols = weights.cols();
  const Geometry geometry = geometry_of(*weights.encoding, cols);
  const CodePlanes planes = planes_of(geometry.form);
  const int block_bytes = kPanelRows * kBlock * planes.low_bits / 8;
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(cols));
  std::vector<std::byte> scales(is_nvfp4(*weights.encoding) ? static_cast<std::size_t>(cols / kHalfBlock) : 0);
  for (std::int64_t first = row_begin; first < row_end; first += kPanelRows) {
    std::byte* panel = packed + first / kPanelRows * geometry.bytes;
    std::memset(panel, 0, static_cast<std::size_t>(geometry.bytes));
    for (int lane = 0; lane < kPanelRows && geometry.has_global; ++lane) {
      constexpr float kOne = 1;  // of lanes without a row
      std::memcpy(panel + geometry.globals_at + lane * 4, &kOne, 4);
    }
    const int rows = static_cast<int>(std::min<std::int64_t>(kPanelRows, row_end - first));
    for (int lane = 0; lane < rows; ++lane) {
      const std::int64_t row = row_map != nullptr ? row_map[first + lane] : first + lane;
      if (encoding::find_not_finite(weights, row, row + 1) == row)
        fail(ErrorCode::kFormat, "row {} holds a weight or a scale that is NaN or infinite", row);
      const bool blocks = !scales.empty();
      const encoding::ScaledRow at =
          blocks ? read_nvfp4(weights, row, codes.data(), scales.data()) : encoding::scaled_row(weights, row);
      pack_header(weights, geometry, at, lane, panel);
      if (!blocks) encoding::unpack_codes(planes.low_bits, at.codes, cols, codes.data());
      auto* block = reinterpret_cast<std::uint8_t*>(panel + geometry.codes_at);
      for (std::int64_t c = 0; c < cols; c += kBlock, block += block_bytes)
        store_codes(planes, codes.data() + c, lane, block);
    }
  }
}

void unpack_row(const MatrixInfo& matrix, const std::byte* packed, std::int64_t row, float* out) noexcept {
  const ScaledParams& params = params_of(*matrix.encoding);
  const Geometry geometry = geometry_of(*matrix.encoding, matrix.cols);
  const CodePlanes planes = planes_of(geometry.form);
  const float* values = encoding::float_form(params.code).values.data();
  const std::byte* panel = packed + row / kPanelRows * geometry.bytes;
  const auto* block = reinterpret_cast<const std::uint8_t*>(panel + geometry.codes_at);
  const int lane = static_cast<int>(row % kPanelRows);
  float global = 1;
  if (geometry.has_global) std::memcpy(&global, panel + geometry.globals_at + lane * 4, 4);
  for (std::int64_t half = 0; half < geometry.halves; half += 2, block += kPanelRows * kBlock * planes.low_bits / 8) {
    std::uint8_t code[kBlock];
    load_codes(planes, block, lane, code);
    for (int h = 0; h < 2; ++h) {
      const std::int64_t scale_at = (half + h) / geometry.group_halves * kPanelRows + lane;
      const float scale = packed_scale(params.scale_dtype, panel, scale_at) / global;
      for (int i = 0; i < kHalfBlock; ++i) *out++ = values[code[h * kHalfBlock + i]] * scale;
    }
  }
}

}  // namespace nibble::kernel::scaled
