// Falcon: both halves read the block's input, through one norm or two; queries share a few keys and values that lie
// beside them in one tensor. The "rw" models are sequential, with ALiBi and biases.
#include <cmath>

#include "base/error.h"
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::falcon {

namespace {

constexpr std::string_view kModelTypes[] = {"falcon"};
constexpr KeyAlias kKeys[] = {{"n_embed", "hidden_size"},
                              {"n_head", "num_attention_heads"},
                              {"n_layer", "num_hidden_layers"},
                              {"n_head_kv", "num_key_value_heads"},
                              {"num_kv_heads", "num_key_value_heads"},
                              {"ffn_hidden_size", "intermediate_size"},
                              {"layer_norm_epsilon", "rms_norm_eps"},
                              {"activation", "hidden_act"}};
constexpr RoleNames kNames[] = {{Role::kTokenEmbedding, "transformer.word_embeddings"},
                                {Role::kOutputNorm, "transformer.ln_f"},
                                {Role::kAttnQkv, "self_attention.query_key_value"},
                                {Role::kAttnOutput, "self_attention.dense"},
                                {Role::kFfnUp, "mlp.dense_h_to_4h"},
                                {Role::kFfnDown, "mlp.dense_4h_to_h"}};
// With a norm for each half; GGUF calls the feed-forward's "attn_norm".
constexpr RoleNames kTwoNormNames[] = {{Role::kTokenEmbedding, "transformer.word_embeddings"},
                                       {Role::kOutputNorm, "transformer.ln_f"},
                                       {Role::kAttnNorm, "ln_attn", "attn_norm_2"},
                                       {Role::kFfnNorm, "ln_mlp", "attn_norm"},
                                       {Role::kAttnQkv, "self_attention.query_key_value"},
                                       {Role::kAttnOutput, "self_attention.dense"},
                                       {Role::kFfnUp, "mlp.dense_h_to_4h"},
                                       {Role::kFfnDown, "mlp.dense_4h_to_h"}};
constexpr std::string_view kAlibiKey = "attention.max_alibi_bias";
constexpr float kMaxAlibi = 8;

void complete(ModelSpec& spec, bool from_gguf) {
  spec.norm = NormKind::kLayer;
  spec.norm_bias = true;
  const BlockSpec& first = spec.blocks.at(0);
  const bool two_norms = first.parallel && first.ffn_norm;
  const std::span<const RoleNames> names = two_norms ? std::span<const RoleNames>(kTwoNormNames) : kNames;
  for (BlockSpec& block : spec.blocks) {
    block.qkv_fused = true;
    block.gated = false;
    if (from_gguf) block.activation = Activation::kGelu;
  }
  // ALiBi is added before the scores are scaled.
  if (spec.positions == Positions::kAlibi) spec.alibi_scale = 1 / std::sqrt(static_cast<double>(first.head_dim));
  add_decoder_weights(spec, {.hf_blocks = "transformer.h.", .names = names, .hf_qkv = RowOrder::Kind::kGroups},
                      from_gguf);
}

ModelSpec from_hf(const json::Value& config) {
  const bool grouped = config.get("new_decoder_architecture", false);
  json::Value usual = with_usual_keys(config, kKeys);
  usual.set("head_dim", json::Value());  // always derived
  if (!grouped && config.get("multi_query", true)) usual.set("num_key_value_heads", 1);
  if (!grouped && !config.get("multi_query", true)) usual.set("num_key_value_heads", json::Value());
  ModelSpec spec = decoder_from_hf(
      usual, {.norm_eps = 1e-5, .context = 2048, .activation = "gelu", .tied = true, .ffn_per_hidden = 4});
  spec.arch = "falcon";
  if (config.get("alibi", false)) spec.positions = Positions::kAlibi;
  const bool parallel = grouped || config.get("parallel_attn", true);
  const bool two_norms = grouped && config.get("num_ln_in_parallel_attn", 2) == 2;
  for (BlockSpec& block : spec.blocks) {
    block.parallel = parallel;
    block.ffn_norm = !parallel || two_norms;
    block.qkv_bias = block.output_bias = block.ffn_bias = config.get("bias", false);
  }
  complete(spec, false);
  return spec;
}

// Nothing says how many norms there are; those of more key/value heads than one have two as a rule, and a sequential
// model is one with ALiBi.
ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "falcon", NormKind::kLayer);
  const bool alibi = metadata.contains(arch_key(spec, kAlibiKey));
  if (alibi) spec.positions = Positions::kAlibi;
  const bool two_norms =
      metadata.get_int(arch_key(spec, "norms_per_block"), spec.blocks[0].n_kv_heads > 1 ? 2 : 1) == 2;
  for (BlockSpec& block : spec.blocks) {
    block.parallel = !alibi;
    block.ffn_norm = alibi || two_norms;
  }
  complete(spec, true);
  return spec;
}

void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  decoder_to_gguf(spec, metadata);
  metadata.set(arch_key(spec, "tensor_data_layout"), std::string("jploski"));
  const BlockSpec& block = spec.blocks.at(0);
  const bool alibi = spec.positions == Positions::kAlibi;
  if (alibi != !block.parallel) {
    fail(ErrorCode::kUnsupported, "a sequential Falcon without ALiBi, or a parallel one with it, has no form in GGUF");
  }
  if (alibi) metadata.set(arch_key(spec, kAlibiKey), kMaxAlibi);
  if (!alibi && block.ffn_norm != (block.n_kv_heads > 1)) {
    metadata.set(arch_key(spec, "norms_per_block"), std::uint32_t{block.ffn_norm ? 2u : 1u});
  }
}

json::Value to_hf(const ModelSpec& spec) {
  const BlockSpec& block = spec.blocks.at(0);
  json::Value config = decoder_to_hf(spec, "falcon", "FalconForCausalLM");
  config.set("num_kv_heads", block.n_kv_heads);
  config.set("ffn_hidden_size", block.ffn);
  config.set("layer_norm_epsilon", *config.find("rms_norm_eps"));
  config.set("activation", *config.find("hidden_act"));
  const bool grouped = block.parallel && (block.ffn_norm || (block.n_kv_heads > 1 && block.n_kv_heads < block.n_heads));
  config.set("new_decoder_architecture", grouped);
  if (grouped) config.set("num_ln_in_parallel_attn", block.ffn_norm ? 2 : 1);
  config.set("multi_query", block.n_kv_heads == 1);
  config.set("parallel_attn", block.parallel);
  config.set("alibi", spec.positions == Positions::kAlibi);
  config.set("bias", block.qkv_bias);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"falcon", kModelTypes, from_hf, from_gguf, to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::falcon
