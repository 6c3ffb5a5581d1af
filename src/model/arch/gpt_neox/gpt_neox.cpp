// GPT-NeoX and Pythia: both halves read the block's input through norms of their own; q, k and v of each head lie
// together; a part of each head is rotated.
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::gpt_neox {

namespace {

constexpr std::string_view kModelTypes[] = {"gpt_neox"};
constexpr KeyAlias kKeys[] = {
    {"rotary_pct", "partial_rotary_factor"}, {"rotary_emb_base", "rope_theta"}, {"layer_norm_eps", "rms_norm_eps"}};
constexpr RoleNames kNames[] = {{Role::kTokenEmbedding, "gpt_neox.embed_in"},
                                {Role::kOutputNorm, "gpt_neox.final_layer_norm"},
                                {Role::kOutput, "embed_out"},
                                {Role::kAttnQkv, "attention.query_key_value"},
                                {Role::kAttnOutput, "attention.dense"},
                                {Role::kFfnUp, "mlp.dense_h_to_4h"},
                                {Role::kFfnDown, "mlp.dense_4h_to_h"}};
constexpr Dialect kDialect = {.hf_blocks = "gpt_neox.layers.", .names = kNames, .hf_qkv = RowOrder::Kind::kGroups};
constexpr std::string_view kParallelKey = "use_parallel_residual";

void complete(ModelSpec& spec, bool parallel, bool from_gguf) {
  spec.norm = NormKind::kLayer;
  spec.norm_bias = true;
  for (BlockSpec& block : spec.blocks) {
    block.qkv_fused = block.ffn_bias = true;
    block.gated = false;
    block.parallel = parallel;
    if (from_gguf) block.activation = Activation::kGelu;
  }
  add_decoder_weights(spec, kDialect, from_gguf);
}

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(
      with_usual_keys(config, kKeys),
      {.norm_eps = 1e-5, .context = 2048, .activation = "gelu", .partial_rotary = 0.25, .grouped = false});
  spec.arch = "gptneox";
  for (BlockSpec& block : spec.blocks) block.qkv_bias = block.output_bias = config.get("attention_bias", true);
  complete(spec, config.get(kParallelKey, true), false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "gptneox", NormKind::kLayer);
  complete(spec, metadata.get_bool(arch_key(spec, kParallelKey), true), true);
  return spec;
}

void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  decoder_to_gguf(spec, metadata);
  metadata.set(arch_key(spec, kParallelKey), spec.blocks.at(0).parallel);
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = with_own_keys(decoder_to_hf(spec, "gpt_neox", "GPTNeoXForCausalLM"), kKeys);
  config.set("rotary_pct", static_cast<double>(spec.rope.dims) / spec.blocks.at(0).head_dim);
  config.set("attention_bias", spec.blocks.at(0).qkv_bias);
  config.set(kParallelKey, spec.blocks.at(0).parallel);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"gptneox", kModelTypes, from_hf, from_gguf, to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::gpt_neox
