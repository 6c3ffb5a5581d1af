// Gemma 3 (text): as Gemma 2, with norms of queries and keys instead of soft caps, and a rotation of its own in the
// five of six blocks that have a window.
#include <cmath>

#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::gemma3 {

namespace {

constexpr std::string_view kModelTypes[] = {"gemma3_text"};
constexpr std::string_view kLargerTypes[] = {"gemma3"};
constexpr KeyAlias kKeys[] = {{"hidden_activation", "hidden_act"}};
constexpr RoleNames kNames[] = {{Role::kFfnNorm, "pre_feedforward_layernorm"}};
constexpr Dialect kDialect = {.names = kNames, .gguf_norm_plus_one = true};
constexpr std::int64_t kPeriod = 6;      // of windows
constexpr int kLayersOfTheLargest = 62;  // whose scores are scaled by hidden size / heads: GGUF has no key for it
constexpr double kLocalTheta = 10000;

void complete(ModelSpec& spec, bool from_gguf) {
  spec.norm_add_one = true;
  spec.embedding_scale = std::sqrt(static_cast<double>(spec.hidden));
  for (BlockSpec& block : spec.blocks) {
    block.attn_post_norm = block.ffn_post_norm = true;
    block.qk_norm = QkNorm::kPerHead;
    block.rope = block.window > 0 ? BlockRope::kLocal : BlockRope::kMain;
  }
  add_decoder_weights(spec, kDialect, from_gguf);
}

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(with_usual_keys(config, kKeys), {.norm_eps = 1e-6,
                                                                    .context = 131072,
                                                                    .kv_heads = 4,
                                                                    .head_dim = 256,
                                                                    .activation = "gelu_pytorch_tanh",
                                                                    .tied = true,
                                                                    .theta = 1e6,
                                                                    .heads = 8,
                                                                    .vocab = 262208});
  spec.arch = "gemma3";
  spec.attention_scale = 1 / std::sqrt(config.get("query_pre_attn_scalar", 256.0));
  spec.attention_softcap = config.get("attn_logit_softcapping", 0.0);
  spec.logit_softcap = config.get("final_logit_softcapping", 0.0);
  const std::vector<bool> sliding = layers_by_period(spec, config, kPeriod);
  for (std::size_t i = 0; i < sliding.size(); ++i) {
    spec.blocks[i].window = sliding[i] ? config.get("sliding_window", 4096) : 0;
  }
  if (spec.local_rope.dims == 0) {  // one set of parameters: that of the blocks without a window
    spec.local_rope.dims = spec.rope.dims;
    spec.local_rope.theta = config.get("rope_local_base_freq", kLocalTheta);
  }
  for (BlockSpec& block : spec.blocks) block.qkv_bias = block.output_bias = config.get("attention_bias", false);
  complete(spec, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "gemma3");
  const bool largest = spec.n_layers() == kLayersOfTheLargest;
  const auto scored = static_cast<double>(largest ? spec.hidden / spec.blocks[0].n_heads : spec.blocks[0].head_dim);
  spec.attention_scale = 1 / std::sqrt(scored);
  for (BlockSpec& block : spec.blocks) block.activation = Activation::kGeluTanh;
  windows_from_gguf(metadata, kPeriod, spec);
  scales_from_gguf(metadata, spec);
  spec.local_rope.dims = spec.rope.dims;
  spec.local_rope.theta = metadata.get_float(arch_key(spec, "rope.freq_base_swa"), kLocalTheta);
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
  json::Value config = decoder_to_hf(spec, "gemma3_text", "Gemma3ForCausalLM");
  config.set("hidden_activation", *config.find("hidden_act"));
  config.set("attention_bias", spec.blocks.at(0).qkv_bias);
  config.set("query_pre_attn_scalar", std::round(1 / (spec.attention_scale * spec.attention_scale)));
  if (spec.logit_softcap != 0) config.set("final_logit_softcapping", spec.logit_softcap);
  config.set("rope_local_base_freq", spec.local_rope.theta);
  add_layer_windows(spec, config);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"gemma3", kModelTypes, from_hf, from_gguf, to_gguf, to_hf, nullptr, kLargerTypes};
  return arch;
}

}  // namespace nibble::model::gemma3
