// compressed-tensors (llm-compressor, vLLM) where its weights are FP8: X.weight f8_e4m3 and X.weight_scale of the
// whole, of each row, of each group of a row or of each block. Its integers and 4-bit floats are not read.
#include <string>

#include "base/error.h"
#include "container/hf/scaled_floats.h"
#include "container/hf/scheme.h"

namespace nibble::container::hf::compressed_tensors {

namespace {

// The weights of a group: how they are packed. Null when the group leaves them as they are.
const json::Value* weights_of(const json::Value& group) {
  if (!group.is_object()) fail(ErrorCode::kUnsupported, "a preset by name");
  const json::Value* weights = group.find("weights");
  return weights == nullptr || weights->is_null() ? nullptr : weights;
}

template <typename Visit>
void for_each_group(const json::Value& quantization, Visit&& visit) {
  for (const auto& [name, group] : quantization.at("config_groups").as_object()) {
    with_context("config_groups", [&, &key = name, &value = group] {
      with_context(key, [&] {
        if (const json::Value* weights = weights_of(value)) visit(*weights);
      });
    });
  }
}

bool is_fp8(const json::Value& weights) {
  return weights.get("num_bits", 0) == 8 && weights.get("type", "") == "float" && weights.get("symmetric", true);
}

std::string unread(const json::Value& quantization) {
  const std::string format = quantization.get("format", "unknown");
  if (format != "float-quantized" && format != "naive-quantized") return format_text("'format' {}", format);
  const json::Value* sparsity = quantization.find("sparsity_config");
  if (sparsity != nullptr && sparsity->is_object() && sparsity->get("format", "dense") != "dense")
    return "a 'sparsity_config'";
  bool fp8 = true;
  for_each_group(quantization, [&](const json::Value& weights) { fp8 = fp8 && is_fp8(weights); });
  return fp8 ? "" : "weights that are not 8-bit floats";
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

void join(const json::Value& quantization, std::vector<TensorEntry>& tensors) {
  std::vector<Tile> tiles;
  for_each_group(quantization, [&](const json::Value& weights) { tiles.push_back(tile_of(weights)); });
  join_fp8(tensors, "_scale", tiles, false);
}

}  // namespace

std::span<const Scheme> entries() {
  static constexpr Scheme kSchemes[] = {{"compressed-tensors", unread, join}};
  return kSchemes;
}

}  // namespace nibble::container::hf::compressed_tensors
