// Ministral 3: Mistral with yarn scaling and queries that grow with their position; also the text model of Mistral 3.
#include <cmath>

#include "base/error.h"
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::ministral3 {

namespace {

constexpr std::string_view kModelTypes[] = {"ministral3"};
constexpr std::string_view kLargerTypes[] = {"mistral3"};
constexpr Dialect kDialect = {.gguf_rope = RowOrder::Kind::kPairs};
constexpr std::string_view kTemperature = "attention.temperature_scale";
constexpr std::string_view kLogMultiplier = "rope.scaling.yarn_log_multiplier";
constexpr std::string_view kAttentionFactor = "rope.scaling.attn_factor";
constexpr std::string_view kBeta = "llama_4_scaling_beta";
constexpr std::string_view kUsualRope =  // where the configuration says nothing
    R"({"rope_type":"yarn","rope_theta":1000000.0,"factor":16.0,"original_max_position_embeddings":16384,)"
    R"("beta_fast":32.0,"beta_slow":1.0,"mscale":1.0,"mscale_all_dim":1.0,"llama_4_scaling_beta":0.1})";

double yarn_growth(const RopeSpec& rope) { return rope.factor <= 1 ? 0 : 0.1 * std::log(rope.factor); }

ModelSpec from_hf(const json::Value& config) {
  const auto given = [&](std::string_view key) {
    const json::Value* value = config.find(key);
    return value != nullptr && !value->is_null() ? value : nullptr;
  };
  json::Value whole = config;
  const json::Value* rope = given("rope_parameters");
  if (rope == nullptr) rope = given("rope_scaling");
  whole.set("rope_parameters", rope != nullptr ? *rope : json::parse(kUsualRope));
  ModelSpec spec =
      decoder_from_hf(whole, {.norm_eps = 1e-5, .context = 262144, .kv_heads = 8, .head_dim = 128, .theta = 1e6});
  spec.arch = "mistral3";
  const std::int64_t window = window_from(config, 0);
  for (BlockSpec& block : spec.blocks) block.window = window;
  spec.temperature_scale = whole.at("rope_parameters").get(kBeta, 0.0);
  if (spec.temperature_scale != 0) spec.temperature_span = spec.rope.original_context;
  add_decoder_weights(spec, kDialect, false);
  return spec;
}

// Files may tell the scaling of cos and sin by the multiplier of yarn's logarithm in its divisor.
ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "mistral3");
  const double multiplier = metadata.get_float(arch_key(spec, kLogMultiplier), 0.0);
  const double growth = yarn_growth(spec.rope);
  if (multiplier != 0 && spec.rope.scaling == RopeScaling::kYarn && spec.rope.attention_factor == 0)
    spec.rope.attention_factor = (1 + growth) / (1 + multiplier * growth);
  spec.temperature_scale = metadata.get_float(arch_key(spec, kTemperature), 0.0);
  if (spec.temperature_scale != 0) spec.temperature_span = spec.rope.original_context;
  add_decoder_weights(spec, kDialect, true);
  return spec;
}

void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  decoder_to_gguf(spec, metadata);
  if (spec.temperature_scale != 0)
    metadata.set(arch_key(spec, kTemperature), static_cast<float>(spec.temperature_scale));
  const double growth = yarn_growth(spec.rope);
  if (spec.rope.scaling != RopeScaling::kYarn || spec.rope.attention_factor == 0 || growth == 0) return;
  const double multiplier = ((1 + growth) / spec.rope.attention_factor - 1) / growth;
  if (std::abs(multiplier - 1) > 1e-6) return;
  metadata.set(arch_key(spec, kLogMultiplier), 1.0f);  // the usual case, as llama.cpp's converter says it
  metadata.erase(arch_key(spec, kAttentionFactor));
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = decoder_to_hf(spec, "ministral3", "Ministral3ForCausalLM");
  const json::Value* scaling = config.find("rope_scaling");
  json::Value rope = scaling != nullptr ? *scaling : json::Value(json::Object{{"rope_type", "default"}});
  rope.set("rope_theta", *config.find("rope_theta"));
  rope.set(kBeta, spec.temperature_scale);
  rope.set("original_max_position_embeddings", spec.rope.original_context);
  config.set("rope_parameters", rope);
  config.set("rope_scaling", nullptr);
  const std::int64_t window = spec.blocks.at(0).window;
  config.set("sliding_window", window > 0 ? json::Value(window) : json::Value());
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"mistral3", kModelTypes, from_hf, from_gguf, to_gguf, to_hf, nullptr, kLargerTypes};
  return arch;
}

}  // namespace nibble::model::ministral3
