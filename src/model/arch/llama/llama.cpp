// Llama 1, 2 and 3. GGUF files of this name hold every architecture that computes the same way, Mistral among them.
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"

namespace nibble::model::llama {

namespace {

constexpr std::string_view kModelTypes[] = {"llama"};
constexpr GgufDialect kDialect = {.interleaved_rope = true};

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

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"llama", kModelTypes, from_hf, from_gguf, decoder_to_gguf};
  return arch;
}

}  // namespace nibble::model::llama
