// Qwen2 and Qwen2.5: biases on q, k and v.
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::qwen2 {

namespace {

constexpr std::string_view kModelTypes[] = {"qwen2"};

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(config, {.norm_eps = 1e-6, .context = 32768, .kv_heads = 32});
  spec.arch = "qwen2";
  for (BlockSpec& block : spec.blocks) block.qkv_bias = true;
  apply_layer_windows(spec, config, 4096);
  add_decoder_weights(spec, {}, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "qwen2");
  add_decoder_weights(spec, {}, true);
  return spec;
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = decoder_to_hf(spec, "qwen2", "Qwen2ForCausalLM");
  add_layer_windows(spec, config);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"qwen2", kModelTypes, from_hf, from_gguf, decoder_to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::qwen2
