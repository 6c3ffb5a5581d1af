// OPT: learned positions that start at the third row, LayerNorm, ReLU. GGUF has no such architecture of its own: the
// names there follow those of others.
#include "base/error.h"
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::opt {

namespace {

constexpr std::string_view kModelTypes[] = {"opt"};
constexpr KeyAlias kKeys[] = {{"ffn_dim", "intermediate_size"}, {"activation_function", "hidden_act"}};
constexpr RoleNames kNames[] = {{Role::kTokenEmbedding, "model.decoder.embed_tokens"},
                                {Role::kPositionEmbedding, "model.decoder.embed_positions"},
                                {Role::kOutputNorm, "model.decoder.final_layer_norm"},
                                {Role::kAttnNorm, "self_attn_layer_norm"},
                                {Role::kAttnOutput, "self_attn.out_proj"},
                                {Role::kFfnNorm, "final_layer_norm"},
                                {Role::kFfnUp, "fc1"},
                                {Role::kFfnDown, "fc2"}};
constexpr Dialect kDialect = {.hf_blocks = "model.decoder.layers.", .names = kNames};

void complete(ModelSpec& spec, bool from_gguf) {
  spec.norm = NormKind::kLayer;
  spec.norm_bias = true;
  spec.norm_eps = 1e-5;
  spec.positions = Positions::kLearned;
  spec.position_offset = 2;
  for (BlockSpec& block : spec.blocks) {
    block.gated = false;
    if (from_gguf) block.activation = Activation::kRelu;
  }
  add_decoder_weights(spec, kDialect, from_gguf);
}

ModelSpec from_hf(const json::Value& config) {
  require_flag(config, "do_layer_norm_before", true, true);
  require_flag(config, "layer_norm_elementwise_affine", true, true);
  require_flag(config, "_remove_final_layer_norm", false, false);
  ModelSpec spec = decoder_from_hf(with_usual_keys(config, kKeys),
                                   {.context = 2048, .activation = "relu", .tied = true, .grouped = false});
  spec.arch = "opt";
  if (config.get("word_embed_proj_dim", spec.hidden) != spec.hidden) {
    fail(ErrorCode::kUnsupported, "config.json 'word_embed_proj_dim' differs from 'hidden_size': not known");
  }
  const bool bias = config.get("enable_bias", true);
  for (BlockSpec& block : spec.blocks) block.qkv_bias = block.output_bias = block.ffn_bias = bias;
  complete(spec, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "opt", NormKind::kLayer);
  complete(spec, true);
  return spec;
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = with_own_keys(decoder_to_hf(spec, "opt", "OPTForCausalLM"), kKeys);
  config.set("enable_bias", spec.blocks.at(0).qkv_bias);
  config.set("word_embed_proj_dim", spec.hidden);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"opt", kModelTypes, from_hf, from_gguf, decoder_to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::opt
