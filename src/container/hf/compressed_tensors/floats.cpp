#include "container/hf/compressed_tensors/floats.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "base/error.h"
#include "container/hf/compressed_tensors/integers.h"
#include "container/hf/scaled_floats.h"
#include "container/hf/static_inputs.h"
#include "encoding/float_code.h"
#include "encoding/scaled.h"

namespace nibble::container::hf::compressed_tensors {

namespace {

using encoding::EncodingInfo;
using encoding::FloatCode;
using encoding::ScaledParams;

constexpr std::string_view kPacked = "_packed";

// Types with a format of their own; every other is "float-quantized".
struct Named {
  std::string_view format, type;
  std::string_view scale_dtype;  // as a config has it
};
constexpr Named kNamed[] = {{"mxfp8-quantized", "mxfp8", "torch.uint8"},
                            {"mxfp4-pack-quantized", "mxfp4-hf", "torch.uint8"},
                            {"nvfp4-pack-quantized", "nvfp4-hf", "torch.float8_e4m3fn"}};

const Named* find_named(std::string_view type) {
  const Named* found = std::ranges::find(kNamed, type, &Named::type);
  return found != std::end(kNamed) ? found : nullptr;
}

std::string_view strategy_of(const ScaledParams& params) {
  if (params.global_scale) return "tensor_group";
  if (params.tile_cols > 0) return params.tile_rows == 1 ? "group" : "block";
  return params.tile_rows == 0 ? "tensor" : "channel";
}

Tile tile_of(const json::Value& weights) {
  const std::string strategy = weights.get("strategy", "tensor");
  if (strategy == "tensor") return kPerTensor;
  if (strategy == "channel") return kPerChannel;
  if (strategy == "block") return read_tile(weights, "block_structure");
  if (strategy != "group") fail(ErrorCode::kUnsupported, "'strategy' {} of weights", strategy);
  const std::int64_t size = weights.get("group_size", 0);
  if (size < 1) fail(ErrorCode::kFormat, "'group_size' {}", size);
  return {1, size};
}

// The tensors of a packed weight.
struct Packed {
  TensorEntry* codes = nullptr;
  const TensorEntry *scales = nullptr, *global = nullptr;  // of nvfp4
};

const TensorEntry& checked_part(const TensorEntry& entry, std::string_view type, const Shape& shape) {
  if (entry.view.encoding->name != type || entry.view.shape != shape) {
    fail(ErrorCode::kFormat, "tensor '{}' is {} of shape {}, not {} of shape {}", entry.name, entry.view.encoding->name,
         entry.view.shape.to_string(), type, shape.to_string());
  }
  return entry;
}

void check_global(const TensorEntry& entry) {
  const float global = encoding::load_float_scale(Dtype::kF32, entry.view.data().data(), 0);
  if (!(global > 0) || !std::isfinite(global))
    fail(ErrorCode::kFormat, "tensor '{}': a global scale of {}", entry.name, global);
}

TensorView make_weight(const Packed& packed, TensorJoin& joined, const std::vector<FloatGroup>& types) {
  const TensorEntry& codes = *packed.codes;
  const bool has_global = packed.global != nullptr;
  const auto group = std::ranges::find_if(types, [&](const FloatGroup& each) {
    return each.weights.code == FloatCode::kE2m1 && each.weights.global_scale == has_global;
  });
  if (group == types.end()) {
    fail(ErrorCode::kFormat, "tensor '{}'{} is in no group of the config", codes.name,
         has_global ? format_text(" with '{}'", packed.global->name) : " without a global scale");
  }
  if (codes.view.encoding->name != "u8" || codes.view.shape.rank() != 2) {
    fail(ErrorCode::kFormat, "tensor '{}' is {} of shape {}, not u8 of two dimensions", codes.name,
         codes.view.encoding->name, codes.view.shape.to_string());
  }
  const ScaledParams* type = &group->weights;
  TensorView view;
  view.encoding = &encoding::scaled_encoding(*type);
  view.shape = {codes.view.shape[0], checked_mul(codes.view.shape[1], std::int64_t{2})};
  const auto parts = with_context(format_text("tensor '{}'", codes.name),
                                  [&] { return encoding::plan_parts(*view.encoding, view.shape); });
  const bool as_bytes = type->scale_dtype == Dtype::kF8E8m0 && packed.scales->view.encoding->dtype == Dtype::kU8;
  checked_part(*packed.scales, as_bytes ? "u8" : dtype_name(type->scale_dtype),
               {view.rows(), encoding::scales_per_row(*type, view.cols())});
  view.add_part(PartRole::kCodes, Dtype::kU8, parts[0].shape, codes.view.data());
  view.add_part(PartRole::kScales, type->scale_dtype, parts[1].shape, packed.scales->view.data());
  if (has_global) {
    check_global(checked_part(*packed.global, "f32", {1}));
    view.add_part(PartRole::kGlobalScale, Dtype::kF32, {1}, packed.global->view.data());
  }
  encoding::validate(view);
  if (group->inputs != nullptr)
    view.inputs = read_inputs(joined, *group->inputs, {module_of(codes.name) + ".input_scale", "", 0});
  return view;
}

void join_packed(CheckpointContents& contents, const std::vector<FloatGroup>& types) {
  TensorJoin joined(contents.tensors);
  std::vector<TensorEntry*> packed;
  for (TensorEntry& entry : contents.tensors) {
    if (!entry.name.ends_with(".weight_packed") || entry.view.encoding->name == "i32") continue;
    const std::string name = entry.name.substr(0, entry.name.size() - kPacked.size());
    const Packed parts = {&entry, joined.find(name + "_scale"), joined.find(name + "_global_scale")};
    if (parts.scales == nullptr) fail(ErrorCode::kFormat, "tensor '{}' is there without '{}_scale'", entry.name, name);
    if (joined.find(name) != nullptr) fail(ErrorCode::kFormat, "tensor '{}' is there beside '{}'", name, entry.name);
    entry.view = make_weight(parts, joined, types);
    joined.absorb(*parts.scales);
    if (parts.global != nullptr) joined.absorb(*parts.global);
  }
  joined.finish();
  for (TensorEntry& entry : contents.tensors) {
    if (entry.view.encoding->family == encoding::Family::kScaled && entry.name.ends_with(".weight_packed"))
      entry.name.resize(entry.name.size() - kPacked.size());
  }
}

}  // namespace

std::string unread_floats(const json::Value& weights, std::string_view format) {
  const std::int64_t bits = weights.get("num_bits", 0);
  const bool symmetric = weights.get("symmetric", true);
  const Named* named = std::ranges::find(kNamed, format, &Named::format);
  if (named == std::end(kNamed))
    return bits == 8 && symmetric ? "" : "weights that are neither integers nor 8-bit floats";
  const ScaledParams& params = encoding::get(named->type).scaled;
  const std::int64_t group = weights.get("group_size", 0);
  if (bits == encoding::float_form(params.code).bits && symmetric && group == params.tile_cols) return "";
  return format_text("'format' {} and {} bits in groups of {}", format, bits, group);
}

FloatGroup read_floats(const json::Value& weights, const json::Value* activations, std::string_view format) {
  FloatGroup group;
  const Named* named = std::ranges::find(kNamed, format, &Named::format);
  if (named != std::end(kNamed)) {
    group.weights = encoding::get(named->type).scaled;
  } else {
    const Tile tile = tile_of(weights);
    group.weights = {FloatCode::kE4m3, tile.rows, tile.cols};
  }
  if (activations == nullptr || activations->get("num_bits", 8) == 4) return group;
  group.inputs = read_input_type(activations);
  if (group.inputs->code != encoding::InputCode::kE4m3)
    fail(ErrorCode::kUnsupported, "'input_activations' of integers beside weights of floats");
  return group;
}

void join_floats(CheckpointContents& contents, const std::vector<FloatGroup>& types) {
  const auto weights_of = [](const FloatGroup& group) { return &encoding::scaled_encoding(group.weights); };
  for (const FloatGroup& type : types) {
    if (std::ranges::find(types, weights_of(type), weights_of)->inputs != type.inputs)
      fail(ErrorCode::kUnsupported, "groups of the config that differ only in their 'input_activations'");
  }
  join_packed(contents, types);
  std::vector<Tile> tiles;
  bool byte_scales = false;
  for (const auto& [params, inputs] : types) {
    if (params.code == FloatCode::kE2m1) continue;
    tiles.push_back({params.tile_rows, params.tile_cols, inputs});
    byte_scales = byte_scales || params.scale_dtype == Dtype::kF8E8m0;
  }
  if (!tiles.empty()) join_fp8(contents.tensors, "_scale", tiles, byte_scales);
}

std::string_view float_format(const EncodingInfo& type) {
  const Named* named = find_named(type.name);
  return named != nullptr ? named->format : "float-quantized";
}

json::Value describe_floats(const EncodingInfo& type) {
  const ScaledParams& params = type.scaled;
  const std::string_view strategy = strategy_of(params);
  const bool groups = params.tile_rows == 1 && params.tile_cols > 0;
  json::Value value = json::Object{{"num_bits", encoding::float_form(params.code).bits},
                                   {"type", "float"},
                                   {"symmetric", true},
                                   {"group_size", groups ? json::Value(params.tile_cols) : json::Value()},
                                   {"strategy", std::string(strategy)},
                                   {"dynamic", false}};
  if (strategy == "block") value.set("block_structure", json::Array{params.tile_rows, params.tile_cols});
  if (const Named* named = find_named(type.name)) value.set("scale_dtype", std::string(named->scale_dtype));
  return value;
}

// Of FP8 any but powers of two; of the types with a format of their own what the preset MXFP8 has.
bool float_takes_inputs(const EncodingInfo& weights, const encoding::ActivationInfo& inputs) {
  if (find_named(weights.name) == nullptr) return inputs.code == encoding::InputCode::kE4m3 && !inputs.powers_of_two;
  return weights.name == "mxfp8" && inputs.powers_of_two && inputs.group == weights.scaled.tile_cols;
}

std::vector<PlannedTensor> lay_out_floats(const PlannedTensor& tensor) {
  const ScaledParams& params = tensor.encoding->scaled;
  const Shape scales = encoding::scaled_scales_shape(params, tensor.shape);
  const bool packed = params.code == FloatCode::kE2m1, whole = strategy_of(params) == "tensor";
  const auto row_bytes = static_cast<std::int64_t>(encoding::scaled_row_bytes(params, tensor.shape.cols()));
  const bool exponents = params.scale_dtype == Dtype::kF8E8m0;
  std::vector<PlannedTensor> files = {
      {tensor.name + (packed ? std::string(kPacked) : ""),
       &encoding::get(packed ? "u8" : "f8_e4m3"),
       {tensor.shape.rows(), row_bytes}},
      {tensor.name + "_scale", &encoding::get(exponents ? "u8" : dtype_name(params.scale_dtype)),
       whole ? Shape({1}) : Shape({scales[1], scales[2]})}};
  if (params.global_scale) files.push_back({tensor.name + "_global_scale", &encoding::get("f32"), {1}});
  if (tensor.inputs != nullptr && tensor.inputs->is_static())
    files.push_back({module_of(tensor.name) + ".input_scale", &encoding::get("f32"), {1}});
  return files;
}

}  // namespace nibble::container::hf::compressed_tensors
