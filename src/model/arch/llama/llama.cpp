// Llama 1, 2 and 3. GGUF files of this name hold every architecture that computes the same way, Mistral among them.
#include "base/error.h"
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::llama {

namespace {

constexpr std::string_view kModelTypes[] = {"llama"};
constexpr Dialect kDialect = {.gguf_rope = RowOrder::Kind::kPairs};

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(config, {.norm_eps = 1e-6, .context = 2048});
  spec.arch = "llama";
  for (BlockSpec& block : spec.blocks) {
    block.qkv_bias = block.output_bias = config.get("attention_bias", false);
    block.ffn_bias = config.get("mlp_bias", false);
  }
  add_decoder_weights(spec, kDialect, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "llama");
  add_decoder_weights(spec, kDialect, true);
  return spec;
}

json::Value to_hf(const ModelSpec& spec) {
  const BlockSpec& block = spec.blocks.at(0);
  if (block.qkv_bias != block.output_bias) {
    fail(ErrorCode::kUnsupported, "biases on some attention projections only have no form in a Llama configuration");
  }
  json::Value config = decoder_to_hf(spec, "llama", "LlamaForCausalLM");
  config.set("attention_bias", block.qkv_bias);
  config.set("mlp_bias", block.ffn_bias);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"llama", kModelTypes, from_hf, from_gguf, decoder_to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::llama
