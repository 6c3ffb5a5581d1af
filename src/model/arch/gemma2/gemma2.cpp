// Gemma 2: norms around each half, every other block with a window, soft caps on scores and logits.
#include <cmath>

#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::gemma2 {

namespace {

constexpr std::string_view kModelTypes[] = {"gemma2"};
constexpr KeyAlias kKeys[] = {{"hidden_activation", "hidden_act"}};
constexpr RoleNames kNames[] = {{Role::kFfnNorm, "pre_feedforward_layernorm"}};
constexpr Dialect kDialect = {.names = kNames, .gguf_norm_plus_one = true};
constexpr std::int64_t kPeriod = 2;      // of windows
constexpr int kLayersOfTheLargest = 46;  // whose scores are scaled by hidden size / heads: GGUF has no key for it
constexpr double kScoreCap = 50, kLogitCap = 30;

void complete(ModelSpec& spec, bool from_gguf) {
  spec.norm_add_one = true;
  spec.embedding_scale = std::sqrt(static_cast<double>(spec.hidden));
  for (BlockSpec& block : spec.blocks) block.attn_post_norm = block.ffn_post_norm = true;
  add_decoder_weights(spec, kDialect, from_gguf);
}

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(with_usual_keys(config, kKeys), {.norm_eps = 1e-6,
                                                                    .context = 8192,
                                                                    .kv_heads = 4,
                                                                    .head_dim = 256,
                                                                    .activation = "gelu_pytorch_tanh",
                                                                    .tied = true});
  spec.arch = "gemma2";
  spec.attention_scale = 1 / std::sqrt(config.get("query_pre_attn_scalar", 256.0));
  spec.attention_softcap = config.get("attn_logit_softcapping", kScoreCap);
  spec.logit_softcap = config.get("final_logit_softcapping", kLogitCap);
  const std::vector<bool> sliding =
      layers_of_type(spec, config, "sliding_attention", [](std::int64_t layer) { return (layer + 1) % kPeriod != 0; });
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    BlockSpec& block = spec.blocks[i];
    block.window = sliding[i] ? config.get("sliding_window", 4096) : 0;
    block.qkv_bias = block.output_bias = config.get("attention_bias", false);
  }
  complete(spec, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "gemma2");
  const std::int64_t window = metadata.get_int(arch_key(spec, "attention.sliding_window"), 4096);
  const bool largest = spec.n_layers() == kLayersOfTheLargest;
  const auto scored = static_cast<double>(largest ? spec.hidden / spec.blocks[0].n_heads : spec.blocks[0].head_dim);
  spec.attention_scale = 1 / std::sqrt(scored);
  for (BlockSpec& block : spec.blocks) {
    block.window = window;
    block.activation = Activation::kGeluTanh;
  }
  windows_from_gguf(metadata, kPeriod, spec);
  scales_from_gguf(metadata, spec);
  complete(spec, true);
  return spec;
}

void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  decoder_to_gguf(spec, metadata);
  windows_to_gguf(spec, kPeriod, metadata);
  ModelSpec scales = spec;  // the embedding's is known
  scales.embedding_scale = 1;
  scales_to_gguf(scales, metadata);
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = decoder_to_hf(spec, "gemma2", "Gemma2ForCausalLM");
  config.set("hidden_activation", *config.find("hidden_act"));
  config.set("attention_bias", spec.blocks.at(0).qkv_bias);
  config.set("query_pre_attn_scalar", std::round(1 / (spec.attention_scale * spec.attention_scale)));
  config.set("attn_logit_softcapping", spec.attention_softcap);
  config.set("final_logit_softcapping", spec.logit_softcap);
  add_layer_windows(spec, config);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"gemma2", kModelTypes, from_hf, from_gguf, to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::gemma2
