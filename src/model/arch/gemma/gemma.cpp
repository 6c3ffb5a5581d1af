// Gemma: norms that scale by 1 + weight, a scaled embedding, GELU gates, a tied head.
#include <cmath>

#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::gemma {

namespace {

constexpr std::string_view kModelTypes[] = {"gemma"};
constexpr KeyAlias kKeys[] = {{"hidden_activation", "hidden_act"}};
constexpr Dialect kDialect = {.gguf_norm_plus_one = true};

// "gelu" in the published configurations means the tanh form.
void complete(ModelSpec& spec, bool from_gguf) {
  spec.norm_add_one = true;
  spec.embedding_scale = std::sqrt(static_cast<double>(spec.hidden));
  for (BlockSpec& block : spec.blocks) {
    if (from_gguf || block.activation == Activation::kGelu) block.activation = Activation::kGeluTanh;
  }
  add_decoder_weights(spec, kDialect, from_gguf);
}

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(
      with_usual_keys(config, kKeys),
      {.norm_eps = 1e-6, .context = 8192, .head_dim = 256, .activation = "gelu_pytorch_tanh", .tied = true});
  spec.arch = "gemma";
  for (BlockSpec& block : spec.blocks) block.qkv_bias = block.output_bias = config.get("attention_bias", false);
  complete(spec, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "gemma");
  complete(spec, true);
  return spec;
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = decoder_to_hf(spec, "gemma", "GemmaForCausalLM");
  config.set("hidden_activation", *config.find("hidden_act"));
  config.set("attention_bias", spec.blocks.at(0).qkv_bias);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"gemma", kModelTypes, from_hf, from_gguf, decoder_to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::gemma
