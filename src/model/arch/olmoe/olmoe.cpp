// OLMoE: Llama with a mixture of experts and norms over all queries and all keys.
#include "base/error.h"
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/experts.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::olmoe {

namespace {

constexpr std::string_view kModelTypes[] = {"olmoe"};
constexpr ExpertDefaults kExperts = {.count = 64, .used = 8, .renormalize_key = true};

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(config, {.norm_eps = 1e-5, .context = 4096});
  spec.arch = "olmoe";
  const json::Value* clip = config.find("clip_qkv");
  if (clip != nullptr && !clip->is_null()) fail(ErrorCode::kUnsupported, "config.json 'clip_qkv' is not known");
  experts_from_hf(config, kExperts, spec);
  for (BlockSpec& block : spec.blocks) {
    block.qk_norm = QkNorm::kWhole;
    block.qkv_bias = block.output_bias = config.get("attention_bias", false);
  }
  add_decoder_weights(spec, {}, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "olmoe");
  for (BlockSpec& block : spec.blocks) {
    block.qk_norm = QkNorm::kWhole;
    block.experts.renormalize = false;
  }
  add_decoder_weights(spec, {}, true);
  return spec;
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = decoder_to_hf(spec, "olmoe", "OlmoeForCausalLM");
  config.set("attention_bias", spec.blocks.at(0).qkv_bias);
  experts_to_hf(spec, kExperts, config);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"olmoe", kModelTypes, from_hf, from_gguf, decoder_to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::olmoe
