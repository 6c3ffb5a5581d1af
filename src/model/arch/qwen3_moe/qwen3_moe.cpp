// Qwen3 MoE: Qwen3 with a mixture of experts.
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/experts.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::qwen3_moe {

namespace {

constexpr std::string_view kModelTypes[] = {"qwen3_moe"};
constexpr ExpertDefaults kExperts = {.count = 128, .used = 8, .ffn = 768, .renormalize_key = true};

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(config, {.norm_eps = 1e-6, .context = 32768, .kv_heads = 4});
  spec.arch = "qwen3moe";
  const std::int64_t window = config.get("use_sliding_window", false) ? window_from(config, 4096) : 0;
  for (BlockSpec& block : spec.blocks) {
    block.window = window;
    block.qk_norm = QkNorm::kPerHead;
    block.qkv_bias = block.output_bias = config.get("attention_bias", false);
  }
  experts_from_hf(config, kExperts, spec);
  add_decoder_weights(spec, {}, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "qwen3moe");
  for (BlockSpec& block : spec.blocks) block.qk_norm = QkNorm::kPerHead;
  add_decoder_weights(spec, {}, true);
  return spec;
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = decoder_to_hf(spec, "qwen3_moe", "Qwen3MoeForCausalLM");
  config.set("attention_bias", spec.blocks.at(0).qkv_bias);
  const std::int64_t window = spec.blocks.at(0).window;
  config.set("use_sliding_window", window > 0);
  if (window > 0) config.set("sliding_window", window);
  experts_to_hf(spec, kExperts, config);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"qwen3moe", kModelTypes, from_hf, from_gguf, decoder_to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::qwen3_moe
