// Arcee (AFM): Llama with a plain feed-forward and squared ReLU.
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::arcee {

namespace {

constexpr std::string_view kModelTypes[] = {"arcee"};
constexpr Dialect kDialect = {.gguf_rope = RowOrder::Kind::kPairs};

void complete(ModelSpec& spec, bool from_gguf) {
  for (BlockSpec& block : spec.blocks) {
    block.gated = false;
    if (from_gguf) block.activation = Activation::kRelu2;
  }
  add_decoder_weights(spec, kDialect, from_gguf);
}

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(config, {.norm_eps = 1e-5, .context = 4096, .activation = "relu2"});
  spec.arch = "arcee";
  for (BlockSpec& block : spec.blocks) {
    block.qkv_bias = block.output_bias = config.get("attention_bias", false);
    block.ffn_bias = config.get("mlp_bias", false);
  }
  complete(spec, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "arcee");
  complete(spec, true);
  return spec;
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = decoder_to_hf(spec, "arcee", "ArceeForCausalLM");
  config.set("attention_bias", spec.blocks.at(0).qkv_bias);
  config.set("mlp_bias", spec.blocks.at(0).ffn_bias);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"arcee", kModelTypes, from_hf, from_gguf, decoder_to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::arcee
