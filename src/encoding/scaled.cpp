#include "encoding/scaled.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/checked.h"
#include "encoding/block_codec.h"
#include "encoding/interned.h"
#include "encoding/name_text.h"
#include "tensor/half.h"

namespace nibble::encoding {

namespace {

constexpr std::int64_t kMaxTile = 1 << 20;
constexpr std::string_view kMxfp4 = "mxfp4-hf";
constexpr ScaledParams kMxfp4Params = {FloatCode::kE2m1, 1, 32, Dtype::kF8E8m0};

bool same(const ScaledParams& a, const ScaledParams& b) {
  return a.code == b.code && a.tile_rows == b.tile_rows && a.tile_cols == b.tile_cols && a.scale_dtype == b.scale_dtype;
}

std::string_view suffix_of(Dtype scale_dtype) {
  switch (scale_dtype) {
    case Dtype::kF16:
      return "-f16";
    case Dtype::kBf16:
      return "-bf16";
    case Dtype::kF8E8m0:
      return "-e8m0";
    default:
      return "";
  }
}

std::string canonical_name(const ScaledParams& params) {
  if (params.code == FloatCode::kE2m1) return std::string(kMxfp4);
  std::string name = "fp8-";
  if (params.tile_cols > 0) {
    name += format_text("block{}x{}", params.tile_rows, params.tile_cols);
  } else {
    name += params.tile_rows == 0 ? "tensor" : "channel";
  }
  return name.append(suffix_of(params.scale_dtype));
}

bool in_family(const ScaledParams& params) {
  if (params.code == FloatCode::kE2m1) return same(params, kMxfp4Params);
  const bool scale = params.scale_dtype == Dtype::kF32 || !suffix_of(params.scale_dtype).empty();
  const bool block = params.tile_rows >= 1 && params.tile_cols >= 1;
  const bool whole_rows = params.tile_cols == 0 && (params.tile_rows == 0 || params.tile_rows == 1);
  return scale && (block || whole_rows) && params.tile_rows <= kMaxTile && params.tile_cols <= kMaxTile;
}

int code_bits(const ScaledParams& params) { return params.code == FloatCode::kE2m1 ? 4 : 8; }

EncodingInfo describe(const ScaledParams& params) {
  EncodingInfo info;
  info.name = canonical_name(params);
  info.family = Family::kScaled;
  info.dtype = params.code == FloatCode::kE4m3 ? Dtype::kF8E4m3 : Dtype::kU8;
  info.scaled = params;
  info.bits_per_weight = code_bits(params);
  if (params.code == FloatCode::kE2m1) info.block_elements = static_cast<int>(params.tile_cols);
  if (params.tile_cols > 0) {
    info.bits_per_weight += 8.0 * static_cast<double>(dtype_bytes(params.scale_dtype)) /
                            static_cast<double>(params.tile_rows * params.tile_cols);
  }
  return info;
}

const EncodingInfo& intern(const ScaledParams& params) {
  return interned(canonical_name(params), [&] { return describe(params); });
}

std::optional<ScaledParams> parse(std::string_view text) {
  const std::string_view name = text;
  if (name == kMxfp4) return kMxfp4Params;
  ScaledParams params;
  if (!take(text, "fp8-")) return std::nullopt;
  if (take(text, "channel")) {
    params.tile_rows = 1;
  } else if (take(text, "block")) {
    if (!take_number(text, params.tile_rows) || !take(text, "x") || !take_number(text, params.tile_cols))
      return std::nullopt;
  } else if (!take(text, "tensor")) {
    return std::nullopt;
  }
  for (const Dtype dtype : {Dtype::kF16, Dtype::kBf16, Dtype::kF8E8m0}) {
    if (text == suffix_of(dtype)) params.scale_dtype = dtype;
  }
  // Canonical names only; what is left over makes another name.
  if (!in_family(params) || canonical_name(params) != name) return std::nullopt;
  return params;
}

float load_scale(Dtype dtype, const std::byte* scales, std::int64_t index) noexcept {
  if (dtype == Dtype::kF8E8m0) return e8m0_to_f32(load_u8(scales + index));
  if (dtype == Dtype::kF32) {
    float scale;
    std::memcpy(&scale, scales + 4 * index, 4);
    return scale;
  }
  const std::uint16_t half = load_u16(scales + 2 * index);
  return dtype == Dtype::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
}

const std::array<float, 256>& e4m3_values() {
  static const auto table = [] {
    std::array<float, 256> values;
    for (std::size_t i = 0; i < 256; ++i) values[i] = f8_e4m3_to_f32(static_cast<std::uint8_t>(i));
    return values;
  }();
  return table;
}

constexpr float kE2m1Values[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

constexpr std::int64_t tiles(std::int64_t extent, std::int64_t tile) {
  if (tile == 0) return 1;
  return extent / tile + (extent % tile != 0 ? 1 : 0);
}

std::int64_t matrix_rows(const Shape& shape) { return shape.rank() < 2 ? 1 : shape[shape.rank() - 2]; }

}  // namespace

const EncodingInfo* find_scaled(std::string_view name) {
  const auto params = parse(name);
  return params ? &intern(*params) : nullptr;
}

const EncodingInfo& scaled_encoding(const ScaledParams& params) {
  if (!in_family(params)) {
    fail(ErrorCode::kInvalidArgument, "no encoding of small floats with tiles of {} x {} and scales in {}",
         params.tile_rows, params.tile_cols, dtype_name(params.scale_dtype));
  }
  return intern(params);
}

std::uint64_t scaled_row_bytes(const ScaledParams& params, std::int64_t cols) {
  return static_cast<std::uint64_t>(params.code == FloatCode::kE2m1 ? cols / 2 : cols);
}

std::int64_t scales_per_row(const ScaledParams& params, std::int64_t cols) { return tiles(cols, params.tile_cols); }

Shape scaled_scales_shape(const ScaledParams& params, const Shape& shape) {
  const std::int64_t rows = matrix_rows(shape);
  return {rows == 0 ? 0 : shape.rows() / rows, tiles(rows, params.tile_rows), scales_per_row(params, shape.cols())};
}

ScaledRow scaled_row(const TensorView& view, std::int64_t row) {
  const ScaledParams& params = view.encoding->scaled;
  const std::int64_t rows = matrix_rows(view.shape);
  const std::int64_t tile_row = params.tile_rows == 0 ? 0 : row % rows / params.tile_rows;
  const std::int64_t scale =
      (row / rows * tiles(rows, params.tile_rows) + tile_row) * scales_per_row(params, view.cols());
  return {view.parts[0].bytes.data() + static_cast<std::uint64_t>(row) * scaled_row_bytes(params, view.cols()),
          view.parts[1].bytes.data() + static_cast<std::uint64_t>(scale) * dtype_bytes(params.scale_dtype)};
}

void decode_scaled(const ScaledParams& params, std::int64_t cols, const std::byte* codes, const std::byte* scales,
                   std::int64_t begin, std::int64_t count, float* out) noexcept {
  const std::array<float, 256>& e4m3 = e4m3_values();
  const std::int64_t width = params.tile_cols == 0 ? cols : params.tile_cols;
  for (std::int64_t c = begin, end = begin + count; c < end;) {
    const std::int64_t tile = c / width;
    const std::int64_t stop = std::min(end, (tile + 1) * width);
    const float scale = load_scale(params.scale_dtype, scales, tile);
    if (params.code == FloatCode::kE4m3) {
      for (; c < stop; ++c) *out++ = e4m3[load_u8(codes + c)] * scale;
    } else {
      for (; c < stop; ++c) *out++ = kE2m1Values[load_u8(codes + c / 2) >> c % 2 * 4 & 15] * scale;
    }
  }
}

bool scaled_row_is_finite(const ScaledParams& params, std::int64_t cols, const std::byte* codes,
                          const std::byte* scales) noexcept {
  // Scales that keep even the largest code finite leave only the codes of NaN to look for.
  constexpr float kLargest = std::numeric_limits<float>::max() / 512;
  bool small = true;
  for (std::int64_t i = 0; i < scales_per_row(params, cols); ++i)
    small = small && std::fabs(load_scale(params.scale_dtype, scales, i)) <= kLargest;
  if (small && params.code == FloatCode::kE2m1) return true;
  if (small) {
    int found = 0;
    for (std::int64_t c = 0; c < cols; ++c) found |= (load_u8(codes + c) & 0x7F) == 0x7F;
    return found == 0;
  }
  constexpr std::int64_t kStretch = 256;
  float values[kStretch];
  for (std::int64_t begin = 0; begin < cols; begin += kStretch) {
    const std::int64_t count = std::min(kStretch, cols - begin);
    decode_scaled(params, cols, codes, scales, begin, count, values);
    if (!std::all_of(values, values + count, [](float value) { return std::isfinite(value); })) return false;
  }
  return true;
}

bool repacks(const EncodingInfo& from, const EncodingInfo& to) {
  return from.family == Family::kScaled && from.scaled.code == FloatCode::kE2m1 && to.name == "mxfp4";
}

// GGUF's block: the scale, then the codes in q4_0's order.
void repack_row(const TensorView& view, std::int64_t row, std::byte* out) {
  ScaledRow at = scaled_row(view, row);
  for (std::int64_t c = 0; c < view.cols(); c += 32, at.codes += 16) {
    std::int8_t code[32];
    for (int i = 0; i < 16; ++i) {
      code[2 * i] = static_cast<std::int8_t>(load_u8(at.codes + i) & 15);
      code[2 * i + 1] = static_cast<std::int8_t>(load_u8(at.codes + i) >> 4);
    }
    *out++ = *at.scales++;
    pack_nibbles(code, 16, 0, out);
    out += 16;
  }
}

}  // namespace nibble::encoding
