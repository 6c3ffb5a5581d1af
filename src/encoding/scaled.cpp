#include "encoding/scaled.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/checked.h"
#include "encoding/affine.h"
#include "encoding/block_codec.h"
#include "encoding/float_code.h"
#include "encoding/interned.h"
#include "encoding/name_text.h"
#include "tensor/half.h"

namespace nibble::encoding {

namespace {

constexpr std::int64_t kMaxTile = 1 << 20;

// Those with a name of their own.
struct Named {
  std::string_view name;
  ScaledParams params;
};
constexpr Named kNamed[] = {{"mxfp8", {FloatCode::kE4m3, 1, 32, Dtype::kF8E8m0}},
                            {"mxfp8-e5m2", {FloatCode::kE5m2, 1, 32, Dtype::kF8E8m0}},
                            {"mxfp4-hf", {FloatCode::kE2m1, 1, 32, Dtype::kF8E8m0}},
                            {"nvfp4-hf", {FloatCode::kE2m1, 1, 16, Dtype::kF8E4m3, true}}};

bool same(const ScaledParams& a, const ScaledParams& b) {
  return a.code == b.code && a.tile_rows == b.tile_rows && a.tile_cols == b.tile_cols &&
         a.scale_dtype == b.scale_dtype && a.global_scale == b.global_scale;
}
const Named* find_named(const ScaledParams& params) {
  const Named* found = std::ranges::find_if(kNamed, [&](const Named& each) { return same(each.params, params); });
  return found != std::end(kNamed) ? found : nullptr;
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

// "fp8-block128x128-bf16"; `square`: "fp8-block128-bf16".
std::string fp8_name(const ScaledParams& params, bool square = false) {
  std::string name = "fp8-";
  if (params.tile_cols > 0) {
    name += format_text("block{}", params.tile_rows);
    if (!square) name += format_text("x{}", params.tile_cols);
  } else {
    name += params.tile_rows == 0 ? "tensor" : "channel";
  }
  return name.append(params.code == FloatCode::kE5m2 ? "-e5m2" : "").append(suffix_of(params.scale_dtype));
}

std::string canonical_name(const ScaledParams& params) {
  const Named* named = find_named(params);
  return named != nullptr ? std::string(named->name) : fp8_name(params);
}

bool in_family(const ScaledParams& params) {
  if (params.code == FloatCode::kE2m1 || params.global_scale) return find_named(params) != nullptr;
  const bool scale = params.scale_dtype == Dtype::kF32 || !suffix_of(params.scale_dtype).empty();
  const bool block = params.tile_rows >= 1 && params.tile_cols >= 1;
  const bool whole_rows = params.tile_cols == 0 && (params.tile_rows == 0 || params.tile_rows == 1);
  return scale && (block || whole_rows) && params.tile_rows <= kMaxTile && params.tile_cols <= kMaxTile;
}

EncodingInfo describe(const ScaledParams& params) {
  static constexpr Dtype kCodeTypes[] = {Dtype::kF8E4m3, Dtype::kF8E5m2, Dtype::kU8};  // in the order of FloatCode
  EncodingInfo info;
  info.name = canonical_name(params);
  info.family = Family::kScaled;
  info.dtype = kCodeTypes[static_cast<std::size_t>(params.code)];
  info.scaled = params;
  info.bits_per_weight = float_form(params.code).bits;
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
  const Named* named = std::ranges::find(kNamed, name, &Named::name);
  if (named != std::end(kNamed)) return named->params;
  ScaledParams params;
  bool square = false;
  if (!take(text, "fp8-")) return std::nullopt;
  if (take(text, "channel")) {
    params.tile_rows = 1;
  } else if (take(text, "block")) {
    if (!take_number(text, params.tile_rows)) return std::nullopt;
    square = !take(text, "x");
    params.tile_cols = params.tile_rows;
    if (!square && !take_number(text, params.tile_cols)) return std::nullopt;
  } else if (!take(text, "tensor")) {
    return std::nullopt;
  }
  if (take(text, "-e5m2")) params.code = FloatCode::kE5m2;
  for (const Dtype dtype : {Dtype::kF16, Dtype::kBf16, Dtype::kF8E8m0}) {
    if (text == suffix_of(dtype)) params.scale_dtype = dtype;
  }
  // As they are spelled here only; what is left over makes another name.
  if (!in_family(params) || fp8_name(params, square) != name) return std::nullopt;
  return params;
}

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
  return static_cast<std::uint64_t>(cols * float_form(params.code).bits / 8);
}

std::int64_t scales_per_row(const ScaledParams& params, std::int64_t cols) { return tiles(cols, params.tile_cols); }

Shape scaled_scales_shape(const ScaledParams& params, const Shape& shape) {
  const std::int64_t rows = matrix_rows(shape);
  return {rows == 0 ? 0 : shape.rows() / rows, tiles(rows, params.tile_rows), scales_per_row(params, shape.cols())};
}

namespace {

// Of the scales of all matrices, the first of a row's.
std::int64_t first_scale(const ScaledParams& params, const Shape& shape, std::int64_t row) {
  const std::int64_t rows = matrix_rows(shape);
  const std::int64_t tile_row = params.tile_rows == 0 ? 0 : row % rows / params.tile_rows;
  return (row / rows * tiles(rows, params.tile_rows) + tile_row) * scales_per_row(params, shape.cols());
}

}  // namespace

ScaledRow scaled_row(const TensorView& view, std::int64_t row) {
  const ScaledParams& params = view.encoding->scaled;
  const auto scale = static_cast<std::uint64_t>(first_scale(params, view.shape, row));
  ScaledRow at = {view.parts[0].bytes.data() + static_cast<std::uint64_t>(row) * scaled_row_bytes(params, view.cols()),
                  view.parts[1].bytes.data() + scale * dtype_bytes(params.scale_dtype)};
  if (params.global_scale)
    at.global = load_float_scale(Dtype::kF32, view.parts[2].bytes.data(), row / matrix_rows(view.shape));
  return at;
}

std::uint64_t scaled_part_begin(const ScaledParams& params, const Shape& shape, PartRole role, std::int64_t row) {
  if (role == PartRole::kCodes) return static_cast<std::uint64_t>(row) * scaled_row_bytes(params, shape.cols());
  if (role == PartRole::kGlobalScale || params.tile_rows == 0 || shape.rows() == 0) return 0;
  return static_cast<std::uint64_t>(first_scale(params, shape, row)) * dtype_bytes(params.scale_dtype);
}

std::int64_t scaled_row_step(const ScaledParams& params, const Shape& shape) {
  if (params.tile_rows <= 1) return 1;
  const std::int64_t rows = matrix_rows(shape);
  return rows % params.tile_rows == 0 ? params.tile_rows
         : rows == shape.rows()       ? std::min(params.tile_rows, rows)
                                      : rows;
}

float load_float_scale(Dtype dtype, const std::byte* scales, std::int64_t index) noexcept {
  if (dtype == Dtype::kF8E8m0) return e8m0_to_f32(load_u8(scales + index));
  if (dtype == Dtype::kF8E4m3) {
    const std::uint8_t code = load_u8(scales + index);
    return float_form(FloatCode::kE4m3).values[code < 0x80 ? code : 0x7F];
  }
  if (dtype == Dtype::kF32) return std::bit_cast<float>(load_u32(scales + 4 * index));
  const std::uint16_t half = load_u16(scales + 2 * index);
  return dtype == Dtype::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
}

void store_float_scale(Dtype dtype, float scale, std::byte* scales, std::int64_t index) noexcept {
  if (dtype == Dtype::kF8E8m0) {
    scales[index] = static_cast<std::byte>(std::bit_cast<std::uint32_t>(scale) >> 23);  // 2^-127 is 0 there, too
  } else if (dtype == Dtype::kF8E4m3) {
    scales[index] = static_cast<std::byte>(f32_to_f8_e4m3(scale));
  } else if (dtype == Dtype::kF32) {
    store_u32(scales + 4 * index, std::bit_cast<std::uint32_t>(scale));
  } else {
    store_u16(scales + 2 * index, dtype == Dtype::kF16 ? f32_to_f16(scale) : f32_to_bf16(scale));
  }
}

namespace {

// 2^floor(log2(value) - exponent) as e8m0 holds it; value is above 0.
float power_below(float value, int exponent) {
  int above = 0;
  std::frexp(std::min(value, std::numeric_limits<float>::max()), &above);
  return std::ldexp(1.0f, std::max(above - 1 - exponent, -127));
}

}  // namespace

float round_float_scale(Dtype dtype, float scale) {
  if (!(scale > 0)) return 1;
  if (dtype == Dtype::kF8E8m0) return power_below(scale, 0);
  if (dtype == Dtype::kF8E4m3) return std::max(f8_e4m3_to_f32(f32_to_f8_e4m3(scale)), 0x1p-9f);
  const float rounded = round_scale(dtype, scale);
  return rounded > 0 ? rounded : 1;
}

float scale_of_magnitude(const ScaledParams& params, float magnitude, float global) {
  const FloatForm& form = float_form(params.code);
  if (params.scale_dtype == Dtype::kF8E8m0) return magnitude > 0 ? power_below(magnitude, form.exponent) : 1;
  return round_float_scale(params.scale_dtype, magnitude / form.largest * global);
}

float global_of_magnitude(const ScaledParams& params, float magnitude) {
  if (!params.global_scale) return 1;
  const float global = float_form(FloatCode::kE4m3).largest * float_form(params.code).largest / magnitude;
  return std::isfinite(global) ? global : 1;
}

void pack_float_codes(const ScaledParams& params, const std::uint8_t* codes, std::int64_t cols,
                      std::byte* dst) noexcept {
  if (float_form(params.code).bits == 8) {
    std::memcpy(dst, codes, static_cast<std::size_t>(cols));
    return;
  }
  for (std::int64_t i = 0; i < cols / 2; ++i) dst[i] = static_cast<std::byte>(codes[2 * i] | codes[2 * i + 1] << 4);
}

void decode_scaled(const ScaledParams& params, std::int64_t cols, const std::byte* codes, const std::byte* scales,
                   std::int64_t begin, std::int64_t count, float* out, float global) noexcept {
  const FloatForm& form = float_form(params.code);
  const float* values = form.values.data();
  const std::int64_t width = params.tile_cols == 0 ? cols : params.tile_cols;
  for (std::int64_t c = begin, end = begin + count; c < end;) {
    const std::int64_t tile = c / width;
    const std::int64_t stop = std::min(end, (tile + 1) * width);
    const float scale = load_float_scale(params.scale_dtype, scales, tile) / global;
    if (form.bits == 8) {
      for (; c < stop; ++c) *out++ = values[load_u8(codes + c)] * scale;
    } else {
      for (; c < stop; ++c) *out++ = values[load_u8(codes + c / 2) >> c % 2 * 4 & 15] * scale;
    }
  }
}

bool scaled_row_is_finite(const ScaledParams& params, std::int64_t cols, const ScaledRow& row) noexcept {
  // Scales that keep even the largest code finite leave only the codes of what is no number to look for.
  const FloatForm& form = float_form(params.code);
  const float largest = std::numeric_limits<float>::max() / (2 * form.largest);
  bool small = true;
  for (std::int64_t i = 0; i < scales_per_row(params, cols); ++i)
    small = small && std::fabs(load_float_scale(params.scale_dtype, row.scales, i) / row.global) <= largest;
  if (small && form.bits < 8) return true;
  if (small) {
    int found = 0;
    for (std::int64_t c = 0; c < cols; ++c) found |= (load_u8(row.codes + c) & 0x7F) > form.largest_code;
    return found == 0;
  }
  constexpr std::int64_t kStretch = 256;
  float values[kStretch];
  for (std::int64_t begin = 0; begin < cols; begin += kStretch) {
    const std::int64_t count = std::min(kStretch, cols - begin);
    decode_scaled(params, cols, row.codes, row.scales, begin, count, values, row.global);
    if (!std::all_of(values, values + count, [](float value) { return std::isfinite(value); })) return false;
  }
  return true;
}

bool repacks(const EncodingInfo& from, const EncodingInfo& to) { return from.name == "mxfp4-hf" && to.name == "mxfp4"; }

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
