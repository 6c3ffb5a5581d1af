// StableLM: LayerNorm, a quarter of each head rotated, sequential or (without a second norm) parallel halves; the
// largest has norms for each head of queries and keys.
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::stablelm {

namespace {

constexpr std::string_view kModelTypes[] = {"stablelm"};
constexpr KeyAlias kKeys[] = {{"layer_norm_eps", "rms_norm_eps"}};
constexpr RoleNames kNames[] = {{Role::kAttnQNorm, "self_attn.q_layernorm.norms.*"},
                                {Role::kAttnKNorm, "self_attn.k_layernorm.norms.*"}};
constexpr Dialect kDialect = {.names = kNames, .gguf_qk_norm_by_tensor = true};
constexpr std::string_view kParallelKey = "use_parallel_residual";

void complete(ModelSpec& spec, bool parallel, bool qk_norm, bool from_gguf) {
  spec.norm = NormKind::kLayer;
  spec.norm_bias = true;
  for (BlockSpec& block : spec.blocks) {
    block.parallel = parallel;
    block.ffn_norm = !parallel;
    if (qk_norm) block.qk_norm = QkNorm::kPerHeadOwn;
  }
  add_decoder_weights(spec, kDialect, from_gguf);
}

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec =
      decoder_from_hf(with_usual_keys(config, kKeys), {.norm_eps = 1e-5, .context = 4096, .partial_rotary = 0.25});
  spec.arch = "stablelm";
  for (BlockSpec& block : spec.blocks) block.qkv_bias = config.get("use_qkv_bias", false);
  complete(spec, config.get(kParallelKey, false), config.get("qk_layernorm", false), false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "stablelm", NormKind::kLayer);
  complete(spec, metadata.get_bool(arch_key(spec, kParallelKey), false), true, true);
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
  config.set("qk_layernorm", spec.blocks.at(0).qk_norm != QkNorm::kNone);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"stablelm", kModelTypes, from_hf, from_gguf, to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::stablelm
