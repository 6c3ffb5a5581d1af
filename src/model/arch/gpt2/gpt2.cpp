// GPT-2: learned positions, LayerNorm and biases everywhere, linears stored transposed.
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::gpt2 {

namespace {

constexpr std::string_view kModelTypes[] = {"gpt2"};
constexpr KeyAlias kKeys[] = {{"n_embd", "hidden_size"},
                              {"n_layer", "num_hidden_layers"},
                              {"n_head", "num_attention_heads"},
                              {"n_positions", "max_position_embeddings"},
                              {"n_inner", "intermediate_size"},
                              {"layer_norm_epsilon", "rms_norm_eps"},
                              {"activation_function", "hidden_act"}};
constexpr RoleNames kNames[] = {{Role::kTokenEmbedding, "transformer.wte"},
                                {Role::kPositionEmbedding, "transformer.wpe"},
                                {Role::kOutputNorm, "transformer.ln_f"},
                                {Role::kAttnNorm, "ln_1"},
                                {Role::kAttnQkv, "attn.c_attn"},
                                {Role::kAttnOutput, "attn.c_proj"},
                                {Role::kFfnNorm, "ln_2"},
                                {Role::kFfnUp, "mlp.c_fc"},
                                {Role::kFfnDown, "mlp.c_proj"}};
constexpr Dialect kDialect = {.hf_blocks = "transformer.h.", .names = kNames, .hf_transposed = true};

void complete(ModelSpec& spec, bool from_gguf) {
  spec.norm = NormKind::kLayer;
  spec.norm_bias = true;
  spec.positions = Positions::kLearned;
  for (BlockSpec& block : spec.blocks) {
    block.qkv_fused = block.qkv_bias = block.output_bias = block.ffn_bias = true;
    block.gated = false;
    if (from_gguf) block.activation = Activation::kGeluTanh;
  }
  add_decoder_weights(spec, kDialect, from_gguf);
}

ModelSpec from_hf(const json::Value& config) {
  require_flag(config, "scale_attn_weights", true, true);
  require_flag(config, "scale_attn_by_inverse_layer_idx", false, false);
  require_flag(config, "add_cross_attention", false, false);
  ModelSpec spec = decoder_from_hf(with_usual_keys(config, kKeys), {.norm_eps = 1e-5,
                                                                    .context = 1024,
                                                                    .activation = "gelu_new",
                                                                    .tied = true,
                                                                    .ffn_per_hidden = 4,
                                                                    .grouped = false});
  spec.arch = "gpt2";
  complete(spec, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "gpt2", NormKind::kLayer);
  complete(spec, true);
  return spec;
}

json::Value to_hf(const ModelSpec& spec) {
  return with_own_keys(decoder_to_hf(spec, "gpt2", "GPT2LMHeadModel"), kKeys);
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"gpt2", kModelTypes, from_hf, from_gguf, decoder_to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::gpt2
