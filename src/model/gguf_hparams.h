// The `<arch>.*` keys that GGUF's gated decoders share (formats: keys the loader needs), both ways.
#pragma once

#include <string_view>

#include "container/metadata.h"
#include "model/model_spec.h"

namespace nibble::model {

// Everything but weights. Throws Error{kFormat} naming the key.
ModelSpec decoder_from_gguf(const container::Metadata& metadata, std::string_view arch);
void decoder_to_gguf(const ModelSpec& spec, container::Metadata& metadata);

}  // namespace nibble::model
