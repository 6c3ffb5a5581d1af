#include "container/hf/scaled_floats.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "container/hf/format.h"
#include "container/hf/static_inputs.h"
#include "encoding/activation.h"
#include "encoding/scaled.h"

namespace nibble::container::hf {

namespace {

using encoding::EncodingInfo;
using encoding::ScaledParams;

// A shape without its ones: files write the scales of rows as (rows) and as (rows, 1), one scale as () and as (1).
std::vector<std::int64_t> without_ones(const Shape& shape) {
  std::vector<std::int64_t> dims;
  std::ranges::copy_if(shape.dims(), std::back_inserter(dims), [](std::int64_t dim) { return dim != 1; });
  return dims;
}

bool is_e4m3(const TensorEntry& entry) {
  return entry.view.encoding->family == encoding::Family::kPlain && entry.view.encoding->dtype == Dtype::kF8E4m3;
}

Dtype scale_dtype(const TensorEntry& scale, bool byte_scales) {
  const Dtype dtype = scale.view.encoding->dtype;
  if (dtype == Dtype::kU8 && byte_scales) return Dtype::kF8E8m0;
  if (dtype == Dtype::kF32 || dtype == Dtype::kF16 || dtype == Dtype::kBf16 || dtype == Dtype::kF8E8m0) return dtype;
  fail(ErrorCode::kFormat, "tensor '{}' is in {}; scales are in f32, f16, bf16 or f8_e8m0", scale.name,
       dtype_name(dtype));
}

ScaledParams params_of(const Tile& tile, Dtype scales) {
  return {encoding::FloatCode::kE4m3, tile.rows, tile.cols, scales};
}

const Tile& tile_of(const TensorEntry& weight, const TensorEntry& scale, const std::vector<Tile>& tiles, Dtype dtype) {
  std::string expected;
  for (const Tile& tile : tiles) {
    const Shape shape = encoding::scaled_scales_shape(params_of(tile, dtype), weight.view.shape);
    if (without_ones(shape) == without_ones(scale.view.shape)) return tile;
    const std::span<const std::int64_t> dims = shape.dims();
    const Shape shown(weight.view.shape.rank() > 2 ? dims : dims.subspan(1));
    expected += format_text("{}{}", expected.empty() ? "" : " or ", shown.to_string());
  }
  fail(ErrorCode::kFormat, "tensor '{}' of shape {} holds no scales of '{}' of shape {}: those would be {}", scale.name,
       scale.view.shape.to_string(), weight.name, weight.view.shape.to_string(), expected);
}

// What is not FP8 must be a matrix of plain numbers, or no matrix.
void check_plain(const TensorEntry& weight, const TensorEntry* scale) {
  if (weight.view.shape.rank() < 2 || weight.view.n_parts > 1) return;
  const std::string& type = weight.view.encoding->name;
  if (scale != nullptr)
    fail(ErrorCode::kFormat, "tensor '{}' is in {}, but '{}' scales f8_e4m3 numbers", weight.name, type, scale->name);
  if (weight.name.ends_with("weight") && !dtype_is_float(weight.view.encoding->dtype))
    fail(ErrorCode::kUnsupported, "tensor '{}' is in {}, neither f8_e4m3 nor a plain float", weight.name, type);
}

// Are all codes of the tile of that scale 0, of either sign?
bool is_zero_tile(const TensorView& view, std::int64_t index) {
  const encoding::ScaledParams& params = view.encoding->scaled;
  const Shape scales = encoding::scaled_scales_shape(params, view.shape);
  const std::int64_t rows = view.rows() / scales[0], cols = view.cols();
  const std::int64_t across = index % scales[2], down = index / scales[2] % scales[1],
                     matrix = index / scales[2] / scales[1];
  const std::int64_t height = params.tile_rows == 0 ? rows : params.tile_rows;
  const std::int64_t width = params.tile_cols == 0 ? cols : params.tile_cols;
  for (std::int64_t r = down * height; r < std::min(rows, (down + 1) * height); ++r) {
    const auto row =
        view.data().subspan(static_cast<std::size_t>((matrix * rows + r) * cols), static_cast<std::size_t>(cols));
    for (std::int64_t c = across * width; c < std::min(cols, (across + 1) * width); ++c) {
      if ((row[static_cast<std::size_t>(c)] & std::byte{0x7F}) != std::byte{0}) return false;
    }
  }
  return true;
}

}  // namespace

void check_scales(const TensorView& view, std::string_view scales) {
  const Part& part = view.part(PartRole::kScales);
  if (dtype_bytes(part.dtype) == 1) return;
  for (std::int64_t i = 0, n = part.shape.elements(); i < n; ++i) {
    const float scale = encoding::load_float_scale(part.dtype, part.bytes.data(), i);
    if (scale > 0 && std::isfinite(scale)) continue;
    if (scale != 0) fail(ErrorCode::kFormat, "tensor '{}', number {}: a scale of {}", scales, i, scale);
    if (!is_zero_tile(view, i))
      fail(ErrorCode::kFormat, "tensor '{}', number {}: a scale of 0, but not all weights it scales are 0", scales, i);
  }
}

void copy_parts(const TensorView& tensor, std::span<const std::span<std::byte>> files) {
  const auto n_parts = std::min(files.size(), static_cast<std::size_t>(tensor.n_parts));
  for (std::size_t i = 0; i < n_parts; ++i) std::ranges::copy(tensor.parts[i].bytes, files[i].begin());
  if (files.size() > n_parts) std::memcpy(files[n_parts].data(), &tensor.inputs.scale, 4);
}

TensorJoin::TensorJoin(std::vector<TensorEntry>& tensors) : tensors_(tensors), absorbed_(tensors.size()) {
  by_name_.reserve(tensors.size());
  for (TensorEntry& entry : tensors) {
    if (!by_name_.emplace(entry.name, &entry).second)
      fail(ErrorCode::kFormat, "tensor '{}' is there twice", entry.name);
  }
}

TensorEntry* TensorJoin::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found != by_name_.end() ? found->second : nullptr;
}

void TensorJoin::absorb(const TensorEntry& part) {
  absorbed_[static_cast<std::size_t>(&part - tensors_.data())] = true;
}

void TensorJoin::finish() {
  by_name_.clear();
  std::size_t kept = 0;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (absorbed_[i]) continue;
    if (kept != i) tensors_[kept] = std::move(tensors_[i]);
    ++kept;
  }
  tensors_.resize(kept);
}

Tile read_tile(const json::Value& object, std::string_view key) {
  return with_context(key, [&] {
    const json::Array& pair = object.at(key).as_array();
    if (pair.size() != 2) fail(ErrorCode::kFormat, "{} numbers instead of 2", pair.size());
    const Tile tile = {pair[0].as_int(), pair[1].as_int()};
    if (tile.rows < 1 || tile.cols < 1) fail(ErrorCode::kFormat, "a block of {} x {}", tile.rows, tile.cols);
    return tile;
  });
}

namespace {

InputRounding inputs_of(TensorJoin& joined, const std::string& weight, const encoding::ActivationInfo& info,
                        std::span<const std::string_view> suffixes) {
  const std::string module = module_of(weight);
  const auto suffix = std::ranges::find_if(
      suffixes, [&](std::string_view each) { return joined.find(module + std::string(each)) != nullptr; });
  return read_inputs(joined, info,
                     {module + std::string(suffix != suffixes.end() ? *suffix : suffixes.front()), "", 0});
}

}  // namespace

void join_fp8(std::vector<TensorEntry>& tensors, std::string_view suffix, const std::vector<Tile>& tiles,
              bool byte_scales, std::span<const std::string_view> input_suffixes) {
  TensorJoin join(tensors);
  for (TensorEntry& weight : tensors) {
    const TensorEntry* scale = join.find(weight.name + std::string(suffix));
    if (!is_e4m3(weight)) {
      check_plain(weight, scale);
      continue;
    }
    if (scale == nullptr) {
      fail(ErrorCode::kFormat, "tensor '{}' is in f8_e4m3, but its scales '{}{}' are not there", weight.name,
           weight.name, suffix);
    }
    const Dtype dtype = scale_dtype(*scale, byte_scales);
    const Tile& tile = tile_of(weight, *scale, tiles, dtype);
    const EncodingInfo& info = encoding::scaled_encoding(params_of(tile, dtype));
    TensorView view;
    view.encoding = &info;
    view.shape = weight.view.shape;
    view.add_part(PartRole::kCodes, Dtype::kU8, weight.view.shape, weight.view.data());
    view.add_part(PartRole::kScales, info.scaled.scale_dtype, scale->view.shape, scale->view.data());
    encoding::validate(view);
    check_scales(view, scale->name);
    if (tile.inputs != nullptr) view.inputs = inputs_of(join, weight.name, *tile.inputs, input_suffixes);
    weight.view = view;
    join.absorb(*scale);
  }
  join.finish();
}

}  // namespace nibble::container::hf
