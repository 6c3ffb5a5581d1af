// Phi-1, Phi-1.5 and Phi-2: both halves share the block's one norm; a part of each head is rotated; the head has a
// bias.
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::phi2 {

namespace {

constexpr std::string_view kModelTypes[] = {"phi"};
constexpr KeyAlias kKeys[] = {{"layer_norm_eps", "rms_norm_eps"}};
constexpr RoleNames kNames[] = {{Role::kOutputNorm, "model.final_layernorm"},
                                {Role::kAttnQNorm, "self_attn.q_layernorm"},
                                {Role::kAttnKNorm, "self_attn.k_layernorm"},
                                {Role::kAttnOutput, "self_attn.dense"},
                                {Role::kFfnUp, "mlp.fc1"},
                                {Role::kFfnDown, "mlp.fc2"}};
constexpr Dialect kDialect = {.names = kNames, .gguf_qk_norm_by_tensor = true};

void complete(ModelSpec& spec, bool qk_norm, bool from_gguf) {
  spec.norm = NormKind::kLayer;
  spec.norm_bias = spec.head_bias = true;
  for (BlockSpec& block : spec.blocks) {
    block.qkv_bias = block.output_bias = block.ffn_bias = block.parallel = true;
    block.gated = block.ffn_norm = false;
    if (qk_norm) block.qk_norm = QkNorm::kPerHead;
    block.qk_norm_bias = qk_norm;
    if (from_gguf) block.activation = Activation::kGeluTanh;
  }
  add_decoder_weights(spec, kDialect, from_gguf);
}

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec =
      decoder_from_hf(with_usual_keys(config, kKeys),
                      {.norm_eps = 1e-5, .context = 2048, .activation = "gelu_new", .partial_rotary = 0.5});
  spec.arch = "phi2";
  complete(spec, config.get("qk_layernorm", false), false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "phi2", NormKind::kLayer);
  complete(spec, true, true);
  return spec;
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = with_own_keys(decoder_to_hf(spec, "phi", "PhiForCausalLM"), kKeys);
  config.set("partial_rotary_factor", static_cast<double>(spec.rope.dims) / spec.blocks.at(0).head_dim);
  config.set("qk_layernorm", spec.blocks.at(0).qk_norm != QkNorm::kNone);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"phi2", kModelTypes, from_hf, from_gguf, decoder_to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::phi2
