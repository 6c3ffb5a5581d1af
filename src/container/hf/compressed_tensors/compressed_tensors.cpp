// compressed-tensors (llm-compressor, vLLM). FP8, MXFP8, MXFP4 and NVFP4 (floats.h), and integers (integers.h) with or
// without inputs that are rounded.
#include <algorithm>
#include <string>

#include "base/error.h"
#include "container/hf/compressed_tensors/floats.h"
#include "container/hf/compressed_tensors/integers.h"
#include "container/hf/scaled_floats.h"
#include "container/hf/scheme.h"

namespace nibble::container::hf::compressed_tensors {

namespace {

const json::Value* member(const json::Value& group, std::string_view key) {
  const json::Value* value = group.find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

// Every group whose weights are packed; others leave them as they are.
template <typename Visit>
void for_each_group(const json::Value& quantization, Visit&& visit) {
  for (const auto& [name, group] : quantization.at("config_groups").as_object()) {
    with_context("config_groups", [&, &key = name, &value = group] {
      with_context(key, [&] {
        if (!value.is_object()) fail(ErrorCode::kUnsupported, "a preset by name");
        if (const json::Value* weights = member(value, "weights")) visit(value, *weights);
      });
    });
  }
}

bool is_int(const json::Value& weights) { return weights.get("type", "int") == "int"; }

std::string unread_group(const std::string& format, const json::Value& group, const json::Value& weights) {
  constexpr std::string_view kFormats[] = {"float-quantized",     "naive-quantized", "int-quantized",
                                           "pack-quantized",      "mxfp8-quantized", "mxfp4-pack-quantized",
                                           "nvfp4-pack-quantized"};
  if (std::ranges::find(kFormats, format) == std::end(kFormats)) return format_text("'format' {}", format);
  if (!is_int(weights)) {
    std::string what = unread_floats(weights, format);
    if (what.empty()) read_floats(weights, member(group, "input_activations"), format);
    return what;
  }
  read_integers(weights);
  read_input_type(member(group, "input_activations"));
  return "";
}

std::string unread(const json::Value& quantization) {
  const json::Value* sparsity = quantization.find("sparsity_config");
  if (sparsity != nullptr && sparsity->is_object() && sparsity->get("format", "dense") != "dense")
    return "a 'sparsity_config'";
  const std::string format = quantization.get("format", "unknown");
  std::string what;
  for_each_group(quantization, [&](const json::Value& group, const json::Value& weights) {
    if (what.empty()) what = unread_group(group.get("format", format), group, weights);
  });
  return what;
}

constexpr const char* kCache = "kv_cache_scheme";

// One scale for all keys of a layer and one for all values.
const encoding::ActivationInfo* cache(const json::Value& quantization) {
  const json::Value* scheme = member(quantization, kCache);
  if (scheme == nullptr) return nullptr;
  return with_context(kCache, [&]() -> const encoding::ActivationInfo* {
    const json::Value* dynamic = member(*scheme, "dynamic");
    const bool fixed = dynamic == nullptr || (dynamic->is_bool() && !dynamic->as_bool());
    const bool read = fixed && scheme->get("num_bits", 8) == 8 && scheme->get("symmetric", true) &&
                      scheme->get("strategy", "tensor") == "tensor";
    if (!read) return nullptr;
    return encoding::find_activation(scheme->get("type", "int") == "float" ? "fp8-tensor" : "int8-tensor");
  });
}

IntegerGroup read_integer_group(const json::Value& group, const json::Value& weights) {
  IntegerGroup integers{read_integers(weights), read_input_type(member(group, "input_activations"))};
  if (const json::Value* targets = member(group, "targets"); targets != nullptr && targets->is_array()) {
    for (const json::Value& target : targets->as_array()) {
      if (target.is_string()) integers.targets.push_back(target.as_string());
    }
  }
  return integers;
}

void join(const json::Value& quantization, CheckpointContents& contents) {
  const std::string format = quantization.get("format", "unknown");
  std::vector<FloatGroup> floats;
  std::vector<IntegerGroup> integers;
  for_each_group(quantization, [&](const json::Value& group, const json::Value& weights) {
    is_int(weights)
        ? integers.push_back(read_integer_group(group, weights))
        : floats.push_back(read_floats(weights, member(group, "input_activations"), group.get("format", format)));
  });
  if (!floats.empty()) join_floats(contents, floats);
  if (!integers.empty()) join_integers(contents, integers);
  if (!floats.empty()) return;
  for (const TensorEntry& entry : contents.tensors) {
    if (entry.view.encoding->dtype == Dtype::kF8E4m3 && entry.view.shape.rank() > 1)
      fail(ErrorCode::kFormat, "tensor '{}' is in f8_e4m3, but no group of the config is of floats", entry.name);
  }
}

// --- writing ---

bool is_float(const encoding::EncodingInfo& type) { return type.family == encoding::Family::kScaled; }

std::vector<PlannedTensor> lay_out(const PlannedTensor& tensor) {
  return is_float(*tensor.encoding) ? lay_out_floats(tensor) : lay_out_integers(tensor);
}

void pack(const TensorView& tensor, std::span<const std::span<std::byte>> files) {
  is_float(*tensor.encoding) ? copy_parts(tensor, files) : pack_integers(tensor, files);
}

std::string format_of(const encoding::EncodingInfo& type, const encoding::ActivationInfo* inputs) {
  if (is_float(type)) return std::string(float_format(type));
  return inputs != nullptr ? "int-quantized" : "pack-quantized";
}

json::Value describe_group(const encoding::EncodingInfo& type, const encoding::ActivationInfo* inputs,
                           const json::Array& targets) {
  return json::Object{{"targets", targets},
                      {"weights", is_float(type) ? describe_floats(type) : describe_integers(type.affine)},
                      {"input_activations", describe_inputs(inputs)},
                      {"output_activations", nullptr},
                      {"format", format_of(type, inputs)}};
}

// A group of each type; the usual one's takes all linears that are not named elsewhere.
json::Object describe_groups(const QuantizedWeights& weights, bool& mixed) {
  json::Object config_groups;
  if (weights.tensors.empty()) return config_groups;
  const encoding::EncodingInfo& usual = usual_type(weights);
  const encoding::ActivationInfo* inputs = weights.tensors.front().inputs;
  std::vector<std::pair<const encoding::EncodingInfo*, json::Array>> groups = {{&usual, {"Linear"}}};
  for (const PlannedTensor& tensor : weights.tensors) {
    if (tensor.encoding == &usual) continue;
    auto group = std::ranges::find(groups, tensor.encoding, [](const auto& item) { return item.first; });
    if (group == groups.end()) group = groups.insert(groups.end(), {tensor.encoding, {}});
    group->second.emplace_back(module_of(tensor.name));
  }
  for (const auto& [type, targets] : groups) {
    mixed = mixed || format_of(*type, inputs) != format_of(usual, inputs);
    config_groups.emplace_back(format_text("group_{}", config_groups.size()), describe_group(*type, inputs, targets));
  }
  return config_groups;
}

json::Value config(const QuantizedWeights& weights) {
  bool mixed = false;
  json::Object groups = describe_groups(weights, mixed);
  json::Array ignore;
  std::string format = "dense";
  if (!groups.empty()) {
    format = mixed ? "mixed-precision" : format_of(usual_type(weights), weights.tensors.front().inputs);
    for (const std::string& module : weights.kept) ignore.emplace_back(module);
  }
  return json::Object{{"quant_method", "compressed-tensors"}, {"format", std::move(format)},
                      {"quantization_status", "compressed"},  {"config_groups", std::move(groups)},
                      {"ignore", std::move(ignore)},          {kCache, describe_inputs(weights.cache)},
                      {"global_compression_ratio", nullptr}};
}

constexpr Dtype kScales[] = {Dtype::kBf16, Dtype::kF16, Dtype::kF32};
constexpr FloatType kFloats[] = {
    {"fp8-tensor", {encoding::FloatCode::kE4m3, 0, 0, Dtype::kF32}},
    {"fp8-channel", {encoding::FloatCode::kE4m3, 1, 0, Dtype::kF32}},
    {"fp8-block{R}x{C}", {encoding::FloatCode::kE4m3, kAnyTile, kAnyTile, Dtype::kF32}},
    {"mxfp8", {encoding::FloatCode::kE4m3, 1, 32, Dtype::kF8E8m0}},
    {"mxfp4", {encoding::FloatCode::kE2m1, 1, 32, Dtype::kF8E8m0}},
    {"nvfp4", {encoding::FloatCode::kE2m1, 1, 16, Dtype::kF8E4m3, true}},
};
// Its integers have no columns that stay as they are.
bool takes_inputs(const encoding::EncodingInfo& weights, const encoding::ActivationInfo& inputs) {
  if (is_float(weights)) return float_takes_inputs(weights, inputs);
  return !weights.affine.group_index && inputs.code == encoding::InputCode::kInteger && inputs.threshold == 0;
}

constexpr Format kFormats[] = {{
    .name = "compressed-tensors",
    .bits = 0b111111100,
    .per_tensor = true,
    .per_channel = true,
    .per_group = true,
    .indexed = true,
    .scales = kScales,
    .whole_groups = true,
    .floats = kFloats,
    .caches = true,
    .takes_inputs = takes_inputs,
    .lay_out = lay_out,
    .pack = pack,
    .config = config,
}};

}  // namespace

std::span<const Scheme> entries() {
  static constexpr Scheme kSchemes[] = {{"compressed-tensors", unread, join, kFormats, cache}};
  return kSchemes;
}

}  // namespace nibble::container::hf::compressed_tensors
