// OLMo 2 and 3: norms behind each half instead of before it, and over all queries and all keys; OLMo 3 has windows and
// scales the rotation only where there is none.
#include <algorithm>

#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::olmo2 {

namespace {

constexpr std::string_view kModelTypes[] = {"olmo2", "olmo3"};
constexpr std::int64_t kPeriod = 4;  // of OLMo 3's windows

void complete(ModelSpec& spec, bool from_gguf) {
  for (BlockSpec& block : spec.blocks) {
    block.attn_norm = block.ffn_norm = false;
    block.attn_post_norm = block.ffn_post_norm = true;
    block.qk_norm = QkNorm::kWhole;
    block.rope = block.window > 0 ? BlockRope::kLocal : BlockRope::kMain;
  }
  add_decoder_weights(spec, {}, from_gguf);
}

bool has_windows(const ModelSpec& spec) {
  return std::ranges::any_of(spec.blocks, [](const BlockSpec& block) { return block.window > 0; });
}

// The rotation of blocks with a window: the main one without its scaling.
void unscale_local_rope(ModelSpec& spec) {
  if (!has_windows(spec) || spec.local_rope.dims > 0) return;
  spec.local_rope.theta = spec.rope.theta;
  spec.local_rope.dims = spec.rope.dims;
}

ModelSpec from_hf(const json::Value& config) {
  const bool third = config.get("model_type", "") == kModelTypes[1];
  ModelSpec spec = decoder_from_hf(config, {.norm_eps = 1e-5, .context = 2048, .theta = third ? 500000.0 : 10000.0});
  spec.arch = "olmo2";
  const std::vector<bool> sliding = layers_by_period(spec, config, kPeriod);
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    BlockSpec& block = spec.blocks[i];
    block.qkv_bias = block.output_bias = config.get("attention_bias", false);
    if (third && sliding[i]) block.window = config.get("sliding_window", 4096);
  }
  unscale_local_rope(spec);
  complete(spec, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "olmo2");
  windows_from_gguf(metadata, kPeriod, spec);
  unscale_local_rope(spec);
  spec.local_rope.theta = metadata.get_float(arch_key(spec, "rope.freq_base_swa"), spec.local_rope.theta);
  complete(spec, true);
  return spec;
}

void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  decoder_to_gguf(spec, metadata);
  windows_to_gguf(spec, 0, metadata);
}

json::Value to_hf(const ModelSpec& spec) {
  const bool third = has_windows(spec);
  json::Value config = decoder_to_hf(spec, kModelTypes[third ? 1 : 0], third ? "Olmo3ForCausalLM" : "Olmo2ForCausalLM");
  config.set("attention_bias", spec.blocks.at(0).qkv_bias);
  if (third) add_layer_windows(spec, config);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"olmo2", kModelTypes, from_hf, from_gguf, to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::olmo2
