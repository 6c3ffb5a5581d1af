// Command-R and Aya: both halves share the block's one LayerNorm, which has no bias; rotary pairs lie side by side; the
// larger models have norms for each head of queries and keys.
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::cohere {

namespace {

constexpr std::string_view kModelTypes[] = {"cohere"};
constexpr KeyAlias kKeys[] = {{"layer_norm_eps", "rms_norm_eps"}};
constexpr Dialect kDialect = {.hf_rope = RowOrder::Kind::kPairs, .gguf_rope = RowOrder::Kind::kPairs};
constexpr std::string_view kQkNormKey = "attention.qk_norm";
constexpr int kLayersOfTheLargest = 64;  // which has the norms: GGUF has no key of its own for them

void complete(ModelSpec& spec, bool qk_norm, bool from_gguf) {
  spec.norm = NormKind::kLayer;
  for (BlockSpec& block : spec.blocks) {
    block.parallel = true;
    block.ffn_norm = false;
    if (qk_norm) block.qk_norm = QkNorm::kPerHeadOwn;
  }
  add_decoder_weights(spec, kDialect, from_gguf);
}

ModelSpec from_hf(const json::Value& config) {
  json::Value usual = with_usual_keys(config, kKeys);
  if (const json::Value* length = config.find("model_max_length")) usual.set("max_position_embeddings", *length);
  ModelSpec spec = decoder_from_hf(usual, {.norm_eps = 1e-5, .context = 8192, .tied = true, .theta = 500000});
  spec.arch = "command-r";
  spec.logit_scale = config.get("logit_scale", 0.0625);
  for (BlockSpec& block : spec.blocks) block.qkv_bias = block.output_bias = config.get("attention_bias", false);
  complete(spec, config.get("use_qk_norm", false), false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "command-r", NormKind::kLayer);
  scales_from_gguf(metadata, spec);
  const bool largest = spec.n_layers() >= kLayersOfTheLargest;
  complete(spec, metadata.get_bool(arch_key(spec, kQkNormKey), largest), true);
  return spec;
}

void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  decoder_to_gguf(spec, metadata);
  metadata.set(arch_key(spec, "logit_scale"), static_cast<float>(spec.logit_scale));
  if (spec.rope.scaling == RopeScaling::kNone) metadata.set(arch_key(spec, "rope.scaling.type"), std::string("none"));
  const bool qk_norm = spec.blocks.at(0).qk_norm != QkNorm::kNone;
  if (qk_norm != (spec.n_layers() >= kLayersOfTheLargest)) metadata.set(arch_key(spec, kQkNormKey), qk_norm);
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = with_own_keys(decoder_to_hf(spec, "cohere", "CohereForCausalLM"), kKeys);
  config.set("logit_scale", spec.logit_scale);
  config.set("use_qk_norm", spec.blocks.at(0).qk_norm != QkNorm::kNone);
  config.set("attention_bias", spec.blocks.at(0).qkv_bias);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"command-r", kModelTypes, from_hf, from_gguf, to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::cohere
