#include "model/latent.h"

#include <cmath>

#include "base/checked.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"

namespace nibble::model {

namespace {

constexpr std::string_view kLogMultiplier = "rope.scaling.yarn_log_multiplier";
constexpr double kLogFactor = 0.1;  // of yarn's scaling by 1 + 0.1 * mscale * ln(factor)

int size_of(const json::Value& config, std::string_view key, int fallback) {
  return with_context(format_text("config.json '{}'", key),
                      [&] { return checked_cast<int>(config.get(key, fallback)); });
}

void set_latent(const LatentSpec& latent, ModelSpec& spec) {
  for (BlockSpec& block : spec.blocks) {
    block.latent = latent;
    block.n_kv_heads = 1;
    block.head_dim = spec.rope.dims + latent.kv_rank;
  }
}

// Of scores of keys of plain and rotated part, where yarn scales them by (1 + multiplier * ln(factor))^2.
double score_scale(const ModelSpec& spec, double multiplier) {
  const double scale = spec.rope.factor > 1 ? 1 + multiplier * std::log(spec.rope.factor) : 1;
  return scale * scale / std::sqrt(static_cast<double>(spec.blocks.at(0).latent.plain + spec.rope.dims));
}

// The way back from score_scale().
double log_multiplier(const ModelSpec& spec) {
  if (spec.rope.factor <= 1) return 0;
  const double scale = std::sqrt(spec.attention_scale / score_scale(spec, 0));
  return (scale - 1) / std::log(spec.rope.factor);
}

}  // namespace

void latent_from_hf(const json::Value& config, ModelSpec& spec) {
  LatentSpec latent;
  latent.kv_rank = size_of(config, "kv_lora_rank", 512);
  const json::Value* q_rank = config.find("q_lora_rank");
  latent.q_rank = q_rank == nullptr ? 1536 : size_of(config, "q_lora_rank", 0);  // null: none
  latent.plain = size_of(config, "qk_nope_head_dim", 128);
  latent.value = size_of(config, "v_head_dim", 128);
  set_latent(latent, spec);
  const bool scaled = spec.rope.scaling == RopeScaling::kYarn;
  spec.attention_scale =
      score_scale(spec, scaled ? kLogFactor * rope_parameters(config).get("mscale_all_dim", 0.0) : 0);
}

void latent_to_hf(const ModelSpec& spec, json::Value& config) {
  const LatentSpec& latent = spec.blocks.at(0).latent;
  std::erase_if(config.as_object(), [](const auto& member) { return member.first == "partial_rotary_factor"; });
  config.set("num_key_value_heads", spec.blocks[0].n_heads);
  config.set("kv_lora_rank", latent.kv_rank);
  config.set("q_lora_rank", latent.q_rank > 0 ? json::Value(latent.q_rank) : json::Value());
  config.set("qk_nope_head_dim", latent.plain);
  config.set("qk_rope_head_dim", spec.rope.dims);
  config.set("v_head_dim", latent.value);
  config.set("head_dim", spec.rope.dims);
  const json::Value* rope = config.find("rope_scaling");
  if (rope == nullptr) return;
  json::Value scaling = *rope;
  const double mscale = std::round(log_multiplier(spec) / kLogFactor * 1e6) / 1e6;
  if (mscale != 0) {
    scaling.set("mscale", mscale);
    scaling.set("mscale_all_dim", mscale);
  }
  config.set("rope_scaling", scaling);
}

void latent_from_gguf(const container::Metadata& metadata, ModelSpec& spec) {
  const auto size = [&](std::string_view key) { return checked_cast<int>(metadata.get_int(arch_key(spec, key))); };
  LatentSpec latent;
  latent.kv_rank = size("attention.kv_lora_rank");
  latent.q_rank = checked_cast<int>(metadata.get_int(arch_key(spec, "attention.q_lora_rank"), 0));
  latent.value = size("attention.value_length_mla");
  latent.plain = size("attention.key_length_mla") - spec.rope.dims;
  set_latent(latent, spec);
  spec.attention_scale = score_scale(spec, metadata.get_float(arch_key(spec, kLogMultiplier), 0.0));
}

void latent_to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  const LatentSpec& latent = spec.blocks.at(0).latent;
  const auto set = [&](std::string_view key, std::int64_t value) {
    metadata.set(arch_key(spec, key), checked_cast<std::uint32_t>(value));
  };
  set("attention.kv_lora_rank", latent.kv_rank);
  if (latent.q_rank > 0) set("attention.q_lora_rank", latent.q_rank);
  set("attention.value_length", latent.kv_rank);
  set("attention.key_length_mla", latent.plain + spec.rope.dims);
  set("attention.value_length_mla", latent.value);
  const double multiplier = log_multiplier(spec);
  if (spec.rope.scaling == RopeScaling::kYarn && std::abs(multiplier) > 1e-9)
    metadata.set(arch_key(spec, kLogMultiplier), static_cast<float>(multiplier));
}

}  // namespace nibble::model
