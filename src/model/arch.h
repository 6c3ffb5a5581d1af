// An architecture as a plug-in: how its two kinds of description become a ModelSpec, and back into GGUF keys.
#pragma once

#include <span>
#include <string_view>

#include "container/metadata.h"
#include "json/json.h"
#include "model/model_spec.h"
#include "token/vocabulary.h"

namespace nibble::model {

struct Arch {
  std::string_view name;                             // GGUF's general.architecture
  std::span<const std::string_view> hf_model_types;  // config.json "model_type" values
  ModelSpec (*from_hf)(const json::Value& config);
  ModelSpec (*from_gguf)(const container::Metadata& metadata);
  // Writes the <arch>.* keys (formats.md 1.3).
  void (*to_gguf)(const ModelSpec& spec, container::Metadata& metadata);
  // config.json of the spec, without a dtype; throws Error{kUnsupported} for what it cannot say.
  json::Value (*to_hf)(const ModelSpec& spec);
  // Architectures may share a name in GGUF: is a file of this description this one's? Null: if no other's.
  bool (*claims)(const ModelSpec& spec) = nullptr;
  // "model_type" values of larger models, with images, whose 'text_config' may be such a network.
  std::span<const std::string_view> hf_larger_types = {};
  // What a GGUF header does not say of the vocabulary. Null: nothing.
  void (*complete_vocabulary)(token::Vocabulary& vocabulary) = nullptr;
};

std::span<const Arch* const> all_entries();
const Arch& arch_by_model_type(std::string_view hf_model_type);  // throws Error{kUnsupported} listing the known ones
// The description of the text model: `config` itself, or of a larger model its 'text_config'.
json::Value text_config(const json::Value& config);
const Arch& arch_of(const ModelSpec& spec);                     // by its GGUF name; likewise
ModelSpec spec_from_gguf(const container::Metadata& metadata);  // likewise

// Writes the keys of `spec` and reads them back. Throws Error{kUnsupported} naming what GGUF's keys cannot say of it.
void write_gguf_keys(const ModelSpec& spec, container::Metadata& metadata);

}  // namespace nibble::model
