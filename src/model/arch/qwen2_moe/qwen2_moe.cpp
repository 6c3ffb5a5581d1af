// Qwen2 MoE: Qwen2 with a mixture of experts and one expert for all tokens, scaled by a gate of its own.
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/experts.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::qwen2_moe {

namespace {

constexpr std::string_view kModelTypes[] = {"qwen2_moe"};
constexpr ExpertDefaults kExperts = {.count = 60,
                                     .used = 4,
                                     .ffn = 1408,
                                     .shared_key = "shared_expert_intermediate_size",
                                     .shared = 5632,
                                     .renormalize_key = true};

bool slides(std::int64_t layer, std::int64_t limit) { return layer % 2 == 0 && layer < limit; }

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(config, {.norm_eps = 1e-6, .context = 32768, .kv_heads = 16});
  spec.arch = "qwen2moe";
  for (BlockSpec& block : spec.blocks) block.qkv_bias = config.get("qkv_bias", true);
  apply_layer_windows(spec, config, 4096, slides);
  experts_from_hf(config, kExperts, spec);
  add_decoder_weights(spec, {}, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "qwen2moe");
  for (BlockSpec& block : spec.blocks) block.experts.renormalize = false;
  add_decoder_weights(spec, {}, true);
  return spec;
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = decoder_to_hf(spec, "qwen2_moe", "Qwen2MoeForCausalLM");
  config.set("qkv_bias", spec.blocks.at(0).qkv_bias);
  add_layer_windows(spec, config);
  experts_to_hf(spec, kExperts, config);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"qwen2moe", kModelTypes, from_hf, from_gguf, decoder_to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::qwen2_moe
