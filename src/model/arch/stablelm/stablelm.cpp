// StableLM: LayerNorm, a quarter of each head rotated, sequential or (without a second norm) parallel halves.
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::stablelm {

namespace {

constexpr std::string_view kModelTypes[] = {"stablelm"};
constexpr KeyAlias kKeys[] = {{"layer_norm_eps", "rms_norm_eps"}};
constexpr std::string_view kParallelKey = "use_parallel_residual";

void complete(ModelSpec& spec, bool parallel, bool from_gguf) {
  spec.norm = NormKind::kLayer;
  spec.norm_bias = true;
  for (BlockSpec& block : spec.blocks) {
    block.parallel = parallel;
    block.ffn_norm = !parallel;
  }
  add_decoder_weights(spec, {}, from_gguf);
}

ModelSpec from_hf(const json::Value& config) {
  require_flag(config, "qk_layernorm", false, false);
  ModelSpec spec =
      decoder_from_hf(with_usual_keys(config, kKeys), {.norm_eps = 1e-5, .context = 4096, .partial_rotary = 0.25});
  spec.arch = "stablelm";
  for (BlockSpec& block : spec.blocks) block.qkv_bias = config.get("use_qkv_bias", false);
  complete(spec, config.get(kParallelKey, false), false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "stablelm", NormKind::kLayer);
  complete(spec, metadata.get_bool(arch_key(spec, kParallelKey), false), true);
  return spec;
}

void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  decoder_to_gguf(spec, metadata);
  metadata.set(arch_key(spec, kParallelKey), spec.blocks.at(0).parallel);
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = with_own_keys(decoder_to_hf(spec, "stablelm", "StableLmForCausalLM"), kKeys);
  config.set("partial_rotary_factor", static_cast<double>(spec.rope.dims) / spec.blocks.at(0).head_dim);
  config.set("use_qkv_bias", spec.blocks.at(0).qkv_bias);
  config.set(kParallelKey, spec.blocks.at(0).parallel);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"stablelm", kModelTypes, from_hf, from_gguf, to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::stablelm
