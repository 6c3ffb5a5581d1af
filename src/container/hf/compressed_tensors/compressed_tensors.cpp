// compressed-tensors (llm-compressor, vLLM). 8-bit floats: X.weight f8_e4m3 and X.weight_scale of the whole, of each
// row, of each group of a row or of each block. Integers where only weights are quantized (integers.h). Its 4-bit
// floats and what needs integer activations are not read.
#include <algorithm>
#include <string>

#include "base/error.h"
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

bool is_fp8(const json::Value& weights) {
  return weights.get("num_bits", 0) == 8 && !is_int(weights) && weights.get("symmetric", true);
}

std::string unread_group(const std::string& format, const json::Value& group, const json::Value& weights) {
  constexpr std::string_view kFormats[] = {"float-quantized", "naive-quantized", "int-quantized", "pack-quantized"};
  if (std::ranges::find(kFormats, format) == std::end(kFormats)) return format_text("'format' {}", format);
  if (!is_int(weights)) return is_fp8(weights) ? "" : "weights that are neither integers nor 8-bit floats";
  const json::Value* activations = member(group, "input_activations");
  if (activations != nullptr)
    return "integer weights and quantized 'input_activations' (only those whose weights alone are quantized are read)";
  read_integers(weights);
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

void join(const json::Value& quantization, CheckpointContents& contents) {
  std::vector<Tile> tiles;
  std::vector<encoding::AffineParams> integers;
  for_each_group(quantization, [&](const json::Value&, const json::Value& weights) {
    is_int(weights) ? integers.push_back(read_integers(weights)) : tiles.push_back(tile_of(weights));
  });
  if (!integers.empty()) join_integers(contents, integers);
  if (!tiles.empty()) return join_fp8(contents.tensors, "_scale", tiles, false);
  for (const TensorEntry& entry : contents.tensors) {
    if (entry.view.encoding->dtype == Dtype::kF8E4m3 && entry.view.shape.rank() > 1)
      fail(ErrorCode::kFormat, "tensor '{}' is in f8_e4m3, but no group of the config is of floats", entry.name);
  }
}

}  // namespace

std::span<const Scheme> entries() {
  static const Scheme kSchemes[] = {{"compressed-tensors", unread, join, {&kPackQuantized, 1}}};
  return kSchemes;
}

}  // namespace nibble::container::hf::compressed_tensors
