// The keys that the configurations of Hugging Face's gated decoders share.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "json/json.h"
#include "model/model_spec.h"

namespace nibble::model {

// What the configuration class of an architecture takes for keys that a file leaves out.
struct HfDefaults {
  double norm_eps = 1e-6;
  std::int64_t context = 2048;
  int kv_heads = 0;  // 0: as many as query heads
  int head_dim = 0;  // 0: hidden size / heads
  std::string_view activation = "silu";
  bool tied = false;
  double theta = 10000;
  double partial_rotary = 1;
  int ffn_per_hidden = 0;  // 0: the key must be there
  int heads = 0;           // likewise
  std::int64_t vocab = 0;  // likewise
  bool grouped = true;     // keys 'num_key_value_heads' and 'head_dim' exist
};

// A key of an architecture's own for what others call differently.
struct KeyAlias {
  std::string_view own, usual;
};
// `config` with the usual keys beside the own ones, and the way back: with the own ones in their place.
json::Value with_usual_keys(const json::Value& config, std::span<const KeyAlias> aliases);
json::Value with_own_keys(const json::Value& config, std::span<const KeyAlias> aliases);

// The parameters of the rotation: 'rope_parameters', or else 'rope_scaling'; a null value where neither is an object.
const json::Value& rope_parameters(const json::Value& config);

// Sizes, norm, rope, one BlockSpec per layer; no windows, no biases, no weights. Throws Error{kFormat} naming the key.
ModelSpec decoder_from_hf(const json::Value& config, const HfDefaults& defaults);

// Windows of the layers that `layer_types` calls sliding, or else of those of which `slides` says so, given
// `max_window_layers`, when `use_sliding_window` is set.
void apply_layer_windows(
    ModelSpec& spec, const json::Value& config, std::int64_t default_window,
    bool (*slides)(std::int64_t layer, std::int64_t limit) = [](std::int64_t layer, std::int64_t limit) {
      return layer >= limit;
    });
// Is layer i called `type` in 'layer_types', or, where that is absent, by `fallback(i)`?
std::vector<bool> layers_of_type(const ModelSpec& spec, const json::Value& config, std::string_view type,
                                 bool (*fallback)(std::int64_t layer));
// 'sliding_window': `absent` when the key is not there, 0 (all) when it is null.
std::int64_t window_from(const json::Value& config, std::int64_t absent);
// The sliding layers: from 'layer_types', or all but the last of each 'sliding_window_pattern', else `period`, layers.
std::vector<bool> layers_by_period(const ModelSpec& spec, const json::Value& config, std::int64_t period);

// "silu", "gelu", "gelu_pytorch_tanh", ... Throws Error{kUnsupported}.
Activation parse_activation(std::string_view name);
std::string_view activation_name(Activation activation);

// A switch that this program knows in one position only. Throws Error{kUnsupported} naming it.
void require_flag(const json::Value& config, std::string_view key, bool value, bool fallback);

}  // namespace nibble::model
