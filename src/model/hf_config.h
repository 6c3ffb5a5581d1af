// The keys that the configurations of Hugging Face's gated decoders share.
#pragma once

#include "json/json.h"
#include "model/model_spec.h"

namespace nibble::model {

// What the configuration class of an architecture takes for keys that a file leaves out.
struct HfDefaults {
  double norm_eps = 1e-6;
  std::int64_t context = 2048;
  int kv_heads = 0;  // 0: as many as query heads
  int head_dim = 0;  // 0: hidden size / heads
};

// Sizes, norm, rope, one BlockSpec per layer; no windows, no biases, no weights. Throws Error{kFormat} naming the key.
ModelSpec decoder_from_hf(const json::Value& config, const HfDefaults& defaults);

// Windows of the layers that `layer_types` calls sliding, or else of the layers from `max_window_layers` on, when
// `use_sliding_window` is set.
void apply_layer_windows(ModelSpec& spec, const json::Value& config, std::int64_t default_window);

}  // namespace nibble::model
