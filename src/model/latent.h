// The keys of multi-head latent attention in both kinds of configuration.
#pragma once

#include "container/metadata.h"
#include "json/json.h"
#include "model/model_spec.h"

namespace nibble::model {

// Gives every block a latent attention; the rotation is of the keys' shared part. The scale of the scores grows with
// yarn's 'mscale_all_dim'.
void latent_from_hf(const json::Value& config, ModelSpec& spec);
void latent_to_hf(const ModelSpec& spec, json::Value& config);
void latent_from_gguf(const container::Metadata& metadata, ModelSpec& spec);
void latent_to_gguf(const ModelSpec& spec, container::Metadata& metadata);

}  // namespace nibble::model
