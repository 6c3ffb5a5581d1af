// OPT: learned positions that start at the third row, LayerNorm, ReLU; one size norms the sums after each half and has
// a narrower embedding. GGUF has no such architecture of its own: the names there follow those of others.
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
                                {Role::kEmbeddingIn, "model.decoder.project_in"},
                                {Role::kEmbeddingOut, "model.decoder.project_out"},
                                {Role::kOutputNorm, "model.decoder.final_layer_norm"},
                                {Role::kAttnNorm, "self_attn_layer_norm"},
                                {Role::kAttnPostNorm, "self_attn_layer_norm"},
                                {Role::kFfnPostNorm, "final_layer_norm"},
                                {Role::kAttnOutput, "self_attn.out_proj"},
                                {Role::kFfnNorm, "final_layer_norm"},
                                {Role::kFfnUp, "fc1"},
                                {Role::kFfnDown, "fc2"}};
constexpr Dialect kDialect = {.hf_blocks = "model.decoder.layers.", .names = kNames};

constexpr std::string_view kNormAfterKey = "norm_after", kOutputNormKey = "output_norm",
                           kEmbeddingKey = "embedding_row_length";

void complete(ModelSpec& spec, bool norm_after, bool from_gguf) {
  spec.norm = NormKind::kLayer;
  spec.norm_bias = true;
  spec.norm_eps = 1e-5;
  spec.positions = Positions::kLearned;
  spec.position_offset = 2;
  for (BlockSpec& block : spec.blocks) {
    block.gated = false;
    block.attn_norm = block.ffn_norm = !norm_after;
    block.attn_post_norm = block.ffn_post_norm = block.norm_sums = norm_after;
    if (from_gguf) block.activation = Activation::kRelu;
  }
  add_decoder_weights(spec, kDialect, from_gguf);
}

ModelSpec from_hf(const json::Value& config) {
  require_flag(config, "layer_norm_elementwise_affine", true, true);
  ModelSpec spec = decoder_from_hf(with_usual_keys(config, kKeys),
                                   {.context = 2048, .activation = "relu", .tied = true, .grouped = false});
  spec.arch = "opt";
  const std::int64_t width = config.get("word_embed_proj_dim", spec.hidden);
  if (width < 1) fail(ErrorCode::kFormat, "config.json 'word_embed_proj_dim' is {}", width);
  if (width != spec.hidden) spec.embedding = width;
  const bool norm_after = !config.get("do_layer_norm_before", true);
  spec.output_norm = !norm_after && !config.get("_remove_final_layer_norm", false);
  const bool bias = config.get("enable_bias", true);
  for (BlockSpec& block : spec.blocks) block.qkv_bias = block.output_bias = block.ffn_bias = bias;
  complete(spec, norm_after, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "opt", NormKind::kLayer);
  spec.embedding = metadata.get_int(arch_key(spec, kEmbeddingKey), 0);
  spec.output_norm = metadata.get_bool(arch_key(spec, kOutputNormKey), true);
  complete(spec, metadata.get_bool(arch_key(spec, kNormAfterKey), false), true);
  return spec;
}

void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  decoder_to_gguf(spec, metadata);
  if (spec.embedding > 0) metadata.set(arch_key(spec, kEmbeddingKey), static_cast<std::uint32_t>(spec.embedding));
  if (!spec.output_norm) metadata.set(arch_key(spec, kOutputNormKey), false);
  if (spec.blocks.at(0).norm_sums) metadata.set(arch_key(spec, kNormAfterKey), true);
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = with_own_keys(decoder_to_hf(spec, "opt", "OPTForCausalLM"), kKeys);
  config.set("enable_bias", spec.blocks.at(0).qkv_bias);
  config.set("word_embed_proj_dim", spec.embedding_size());
  config.set("do_layer_norm_before", !spec.blocks.at(0).norm_sums);
  config.set("_remove_final_layer_norm", !spec.output_norm && !spec.blocks.at(0).norm_sums);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"opt", kModelTypes, from_hf, from_gguf, to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::opt
