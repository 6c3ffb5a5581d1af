// Multipliers of embedding, residual stream, scores and logits, as families of them have them in both kinds of
// configuration. Logits are divided by 'logits_scaling', and by GGUF's logit_scale.
#pragma once

#include "container/metadata.h"
#include "json/json.h"
#include "model/model_spec.h"

namespace nibble::model {

void multipliers_from_hf(const json::Value& config, ModelSpec& spec);
void multipliers_to_hf(const ModelSpec& spec, json::Value& config);
void multipliers_from_gguf(const container::Metadata& metadata, ModelSpec& spec);
void multipliers_to_gguf(const ModelSpec& spec, container::Metadata& metadata);

}  // namespace nibble::model
