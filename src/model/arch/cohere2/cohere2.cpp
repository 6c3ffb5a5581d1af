// Command-R7B and Command-A: as Command-R, with a window and a rotation in three of four blocks and neither in the
// fourth.
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::cohere2 {

namespace {

constexpr std::string_view kModelTypes[] = {"cohere2"};
constexpr KeyAlias kKeys[] = {{"layer_norm_eps", "rms_norm_eps"}};
constexpr Dialect kDialect = {.hf_rope = RowOrder::Kind::kPairs, .gguf_rope = RowOrder::Kind::kPairs};
constexpr std::int64_t kPeriod = 4;

void complete(ModelSpec& spec, bool from_gguf) {
  spec.norm = NormKind::kLayer;
  for (BlockSpec& block : spec.blocks) {
    block.parallel = true;
    block.ffn_norm = false;
    block.rope = block.window > 0 ? BlockRope::kMain : BlockRope::kNone;
  }
  add_decoder_weights(spec, kDialect, from_gguf);
}

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(with_usual_keys(config, kKeys), {.norm_eps = 1e-5, .context = 8192, .tied = true});
  spec.arch = "cohere2";
  spec.logit_scale = config.get("logit_scale", 0.0625);
  const std::vector<bool> sliding = layers_by_period(spec, config, kPeriod);
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    BlockSpec& block = spec.blocks[i];
    block.qkv_bias = block.output_bias = config.get("attention_bias", false);
    block.window = sliding[i] ? config.get("sliding_window", 4096) : 0;
  }
  complete(spec, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "cohere2", NormKind::kLayer);
  scales_from_gguf(metadata, spec);
  windows_from_gguf(metadata, kPeriod, spec);
  complete(spec, true);
  return spec;
}

void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  decoder_to_gguf(spec, metadata);
  windows_to_gguf(spec, kPeriod, metadata);
  metadata.set(arch_key(spec, "logit_scale"), static_cast<float>(spec.logit_scale));
  if (spec.rope.scaling == RopeScaling::kNone) metadata.set(arch_key(spec, "rope.scaling.type"), std::string("none"));
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = with_own_keys(decoder_to_hf(spec, "cohere2", "Cohere2ForCausalLM"), kKeys);
  config.set("logit_scale", spec.logit_scale);
  config.set("attention_bias", spec.blocks.at(0).qkv_bias);
  config.set("rotary_pct", static_cast<double>(spec.rope.dims) / spec.blocks.at(0).head_dim);
  add_layer_windows(spec, config);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"cohere2", kModelTypes, from_hf, from_gguf, to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::cohere2
