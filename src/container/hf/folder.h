// A Hugging Face folder: config.json and the weights beside it.
#pragma once

#include <filesystem>
#include <memory>

#include "container/checkpoint.h"

namespace nibble::container::hf {

// Weights come from the shards of model.safetensors.index.json, else from model.safetensors, else from the only
// *.safetensors there is. With an index, a tensor is taken from the shard its weight_map names; one the map names and
// the shard lacks is an error. Throws Error{kNotFound} saying what is missing and what lies there instead.
std::unique_ptr<CheckpointReader> open(const std::filesystem::path& folder);
// One file of weights with the config.json beside it; all shards when the index beside it names that file. Null when
// there is no config.json.
std::unique_ptr<CheckpointReader> open_file(const std::filesystem::path& file);

}  // namespace nibble::container::hf
