// The `<arch>.*` keys that GGUF's gated decoders share (formats: keys the loader needs), both ways.
#pragma once

#include <string>
#include <string_view>

#include "container/metadata.h"
#include "model/model_spec.h"

namespace nibble::model {

// Everything but weights. Throws Error{kFormat} naming the key. Windows: one for all layers or one for each.
ModelSpec decoder_from_gguf(const container::Metadata& metadata, std::string_view arch, NormKind norm = NormKind::kRms);
void decoder_to_gguf(const ModelSpec& spec, container::Metadata& metadata);

// "<arch>.<key>".
std::string arch_key(const ModelSpec& spec, std::string_view key);

// One window for the blocks of a pattern: of every `period` blocks all but the last. The key of the pattern, a period
// or a switch for each block, is there when it is not `default_period` (0: always); so is the base frequency of a
// rotation of their own.
void windows_from_gguf(const container::Metadata& metadata, std::int64_t default_period, ModelSpec& spec);
void windows_to_gguf(const ModelSpec& spec, std::int64_t default_period, container::Metadata& metadata);

// The scales and soft caps that GGUF has keys for, each where it does something.
void scales_from_gguf(const container::Metadata& metadata, ModelSpec& spec);
void scales_to_gguf(const ModelSpec& spec, container::Metadata& metadata);

}  // namespace nibble::model
