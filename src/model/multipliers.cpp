#include "model/multipliers.h"

#include <cmath>

#include "model/gguf_hparams.h"

namespace nibble::model {

void multipliers_from_hf(const json::Value& config, ModelSpec& spec) {
  spec.embedding_scale = config.get("embedding_multiplier", 1.0);
  spec.residual_scale = config.get("residual_multiplier", 1.0);
  spec.attention_scale = config.get("attention_multiplier", 1.0);
  spec.logit_scale = 1 / config.get("logits_scaling", 1.0);
}

void multipliers_to_hf(const ModelSpec& spec, json::Value& config) {
  config.set("embedding_multiplier", spec.embedding_scale);
  config.set("residual_multiplier", spec.residual_scale);
  const double scale =
      spec.attention_scale > 0 ? spec.attention_scale : 1 / std::sqrt(double(spec.blocks.at(0).head_dim));
  config.set("attention_multiplier", scale);
  config.set("logits_scaling", 1 / spec.logit_scale);
}

void multipliers_from_gguf(const container::Metadata& metadata, ModelSpec& spec) {
  scales_from_gguf(metadata, spec);
  spec.logit_scale = 1 / spec.logit_scale;
}

void multipliers_to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  metadata.set(arch_key(spec, "embedding_scale"), static_cast<float>(spec.embedding_scale));
  metadata.set(arch_key(spec, "residual_scale"), static_cast<float>(spec.residual_scale));
  metadata.set(arch_key(spec, "attention.scale"), static_cast<float>(spec.attention_scale));
  metadata.set(arch_key(spec, "logit_scale"), static_cast<float>(1 / spec.logit_scale));
}

}  // namespace nibble::model
