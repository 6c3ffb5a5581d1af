// StarCoder2: Llama's shape with LayerNorm, biases and a plain feed-forward.
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::starcoder2 {

namespace {

constexpr std::string_view kModelTypes[] = {"starcoder2"};
constexpr KeyAlias kKeys[] = {{"norm_epsilon", "rms_norm_eps"}};
constexpr RoleNames kNames[] = {{Role::kFfnUp, "mlp.c_fc"}, {Role::kFfnDown, "mlp.c_proj"}};
constexpr Dialect kDialect = {.names = kNames};

void complete(ModelSpec& spec, bool from_gguf) {
  spec.norm = NormKind::kLayer;
  spec.norm_bias = true;
  for (BlockSpec& block : spec.blocks) {
    block.gated = false;
    if (from_gguf) block.activation = Activation::kGeluTanh;
  }
  add_decoder_weights(spec, kDialect, from_gguf);
}

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(
      with_usual_keys(config, kKeys),
      {.norm_eps = 1e-5, .context = 4096, .kv_heads = 2, .activation = "gelu_pytorch_tanh", .tied = true});
  spec.arch = "starcoder2";
  for (BlockSpec& block : spec.blocks) {
    block.qkv_bias = block.output_bias = block.ffn_bias = config.get("use_bias", true);
    block.window = config.get("sliding_window", 0);
  }
  complete(spec, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "starcoder2", NormKind::kLayer);
  complete(spec, true);
  return spec;
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = with_own_keys(decoder_to_hf(spec, "starcoder2", "Starcoder2ForCausalLM"), kKeys);
  config.set("use_bias", spec.blocks.at(0).qkv_bias);
  const std::int64_t window = spec.blocks.at(0).window;
  config.set("sliding_window", window > 0 ? json::Value(window) : json::Value());
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"starcoder2", kModelTypes, from_hf, from_gguf, decoder_to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::starcoder2
