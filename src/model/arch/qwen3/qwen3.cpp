// Qwen3: a norm over each head of q and k, and a head size of its own.
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::qwen3 {

namespace {

constexpr std::string_view kModelTypes[] = {"qwen3"};

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(config, {.norm_eps = 1e-6, .context = 32768, .kv_heads = 32, .head_dim = 128});
  spec.arch = "qwen3";
  for (BlockSpec& block : spec.blocks) {
    block.qk_norm = QkNorm::kPerHead;
    block.qkv_bias = block.output_bias = config.get("attention_bias", false);
  }
  apply_layer_windows(spec, config, 4096);
  add_decoder_weights(spec, {}, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "qwen3");
  for (BlockSpec& block : spec.blocks) block.qk_norm = QkNorm::kPerHead;
  add_decoder_weights(spec, {}, true);
  return spec;
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = decoder_to_hf(spec, "qwen3", "Qwen3ForCausalLM");
  config.set("attention_bias", spec.blocks.at(0).qkv_bias);
  add_layer_windows(spec, config);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"qwen3", kModelTypes, from_hf, from_gguf, decoder_to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::qwen3
