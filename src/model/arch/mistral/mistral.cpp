// Mistral: Llama with a sliding attention window. GGUF knows it as "llama".
#include "base/error.h"
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::mistral {

namespace {

constexpr std::string_view kModelTypes[] = {"mistral"};
constexpr std::string_view kLargerTypes[] = {"mistral3"};
constexpr Dialect kDialect = {.gguf_rope = RowOrder::Kind::kPairs};
constexpr std::int64_t kDefaultWindow = 4096;

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(config, {.norm_eps = 1e-6, .context = 4096 * 32, .kv_heads = 8});
  spec.arch = "llama";
  const std::int64_t window = window_from(config, kDefaultWindow);
  for (BlockSpec& block : spec.blocks) block.window = window;
  add_decoder_weights(spec, kDialect, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "llama");
  add_decoder_weights(spec, kDialect, true);
  return spec;
}

bool claims(const ModelSpec& spec) { return spec.blocks.at(0).window > 0 && spec.blocks.at(0).experts.count == 0; }

json::Value to_hf(const ModelSpec& spec) {
  const BlockSpec& block = spec.blocks.at(0);
  if (block.qkv_bias || block.output_bias || block.ffn_bias)
    fail(ErrorCode::kUnsupported, "a window and biases together have no form in config.json");
  json::Value config = decoder_to_hf(spec, "mistral", "MistralForCausalLM");
  config.set("sliding_window", block.window > 0 ? json::Value(block.window) : json::Value());
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"llama", kModelTypes, from_hf, from_gguf, decoder_to_gguf, to_hf, claims, kLargerTypes};
  return arch;
}

}  // namespace nibble::model::mistral
