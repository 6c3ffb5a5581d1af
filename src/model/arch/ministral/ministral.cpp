// Ministral: Mistral with windows in the layers that the configuration lists. GGUF knows it as "llama", whose entry
// reads it back.
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::ministral {

namespace {

constexpr std::string_view kModelTypes[] = {"ministral"};
constexpr Dialect kDialect = {.gguf_rope = RowOrder::Kind::kPairs};
constexpr std::int64_t kDefaultWindow = 4096;

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(config, {.norm_eps = 1e-6, .context = 4096 * 32, .kv_heads = 8});
  spec.arch = "llama";
  const std::int64_t window = window_from(config, kDefaultWindow);
  const std::vector<bool> sliding =
      layers_of_type(spec, config, "sliding_attention", [](std::int64_t) { return true; });
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) spec.blocks[i].window = sliding[i] ? window : 0;
  add_decoder_weights(spec, kDialect, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "llama");
  add_decoder_weights(spec, kDialect, true);
  return spec;
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = decoder_to_hf(spec, "ministral", "MinistralForCausalLM");
  add_layer_windows(spec, config);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"llama", kModelTypes, from_hf, from_gguf, decoder_to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::ministral
