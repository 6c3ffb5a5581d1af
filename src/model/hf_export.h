// config.json from a ModelSpec: the keys that Hugging Face's gated decoders share.
#pragma once

#include <string_view>

#include "json/json.h"
#include "model/model_spec.h"

namespace nibble::model {

// Sizes, norm, rope and head under those names; biases and windows are the architecture's own business. Throws
// Error{kUnsupported} for what no such configuration can say: layers of different sizes, rope factors of unknown
// origin.
json::Value decoder_to_hf(const ModelSpec& spec, std::string_view model_type, std::string_view class_name);

// The keys that apply_layer_windows() reads back.
void add_layer_windows(const ModelSpec& spec, json::Value& config);

}  // namespace nibble::model
