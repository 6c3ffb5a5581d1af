// SmolLM3: Llama without a rotation in every fourth block.
#include "base/error.h"
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::smollm3 {

namespace {

constexpr std::string_view kModelTypes[] = {"smollm3"};
constexpr Dialect kDialect = {.gguf_rope = RowOrder::Kind::kPairs};
constexpr std::int64_t kPeriod = 4;

bool is_rotated(std::size_t layer, std::int64_t period) { return (static_cast<std::int64_t>(layer) + 1) % period != 0; }

// 'no_rope_layers' holds a 1 for each layer with a rotation.
void apply_ropes(ModelSpec& spec, const json::Value& config) {
  const std::int64_t period = config.get("no_rope_layer_interval", kPeriod);
  if (period < 1) fail(ErrorCode::kFormat, "config.json 'no_rope_layer_interval' is {}", period);
  const json::Value* layers = config.find("no_rope_layers");
  const bool listed = layers != nullptr && layers->is_array();
  if (listed && layers->as_array().size() != spec.blocks.size()) {
    fail(ErrorCode::kFormat, "config.json 'no_rope_layers' has {} entries for {} layers", layers->as_array().size(),
         spec.blocks.size());
  }
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    const bool rotated = listed ? layers->as_array()[i].as_int() != 0 : is_rotated(i, period);
    spec.blocks[i].rope = rotated ? BlockRope::kMain : BlockRope::kNone;
  }
}

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec =
      decoder_from_hf(config, {.norm_eps = 1e-6, .context = 32768, .kv_heads = 4, .tied = true, .theta = 2e6});
  spec.arch = "smollm3";
  apply_ropes(spec, config);
  apply_layer_windows(spec, config, 0);
  for (BlockSpec& block : spec.blocks) {
    block.qkv_bias = block.output_bias = config.get("attention_bias", false);
    block.ffn_bias = config.get("mlp_bias", false);
  }
  add_decoder_weights(spec, kDialect, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "smollm3");
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    spec.blocks[i].rope = is_rotated(i, kPeriod) ? BlockRope::kMain : BlockRope::kNone;
  }
  add_decoder_weights(spec, kDialect, true);
  return spec;
}

void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    if ((spec.blocks[i].rope == BlockRope::kMain) == is_rotated(i, kPeriod)) continue;
    fail(ErrorCode::kUnsupported, "GGUF has no key for other blocks without a rotation than every fourth");
  }
  decoder_to_gguf(spec, metadata);
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = decoder_to_hf(spec, "smollm3", "SmolLM3ForCausalLM");
  json::Array rotated;
  for (const BlockSpec& block : spec.blocks) rotated.emplace_back(block.rope == BlockRope::kMain ? 1 : 0);
  config.set("no_rope_layers", std::move(rotated));
  config.set("attention_bias", spec.blocks.at(0).qkv_bias);
  config.set("mlp_bias", spec.blocks.at(0).ffn_bias);
  add_layer_windows(spec, config);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"smollm3", kModelTypes, from_hf, from_gguf, to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::smollm3
