// Granite: Llama with four multipliers.
#include "base/error.h"
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"
#include "model/multipliers.h"

namespace nibble::model::granite {

namespace {

constexpr std::string_view kModelTypes[] = {"granite"};
constexpr Dialect kDialect = {.gguf_rope = RowOrder::Kind::kPairs};

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(config, {.norm_eps = 1e-6, .context = 2048});
  spec.arch = "granite";
  multipliers_from_hf(config, spec);
  for (BlockSpec& block : spec.blocks) {
    block.qkv_bias = block.output_bias = config.get("attention_bias", false);
    block.ffn_bias = config.get("mlp_bias", false);
  }
  add_decoder_weights(spec, kDialect, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "granite");
  multipliers_from_gguf(metadata, spec);
  add_decoder_weights(spec, kDialect, true);
  return spec;
}

void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  decoder_to_gguf(spec, metadata);
  multipliers_to_gguf(spec, metadata);
}

json::Value to_hf(const ModelSpec& spec) {
  const BlockSpec& block = spec.blocks.at(0);
  if (block.qkv_bias != block.output_bias) {
    fail(ErrorCode::kUnsupported, "biases on some attention projections only have no form in this configuration");
  }
  json::Value config = decoder_to_hf(spec, "granite", "GraniteForCausalLM");
  config.set("attention_bias", block.qkv_bias);
  config.set("mlp_bias", block.ffn_bias);
  multipliers_to_hf(spec, config);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"granite", kModelTypes, from_hf, from_gguf, to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::granite
