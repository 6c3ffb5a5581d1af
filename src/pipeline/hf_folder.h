// The small files of a Hugging Face folder: configuration and tokenizer.
#pragma once

#include <cstdint>
#include <filesystem>

#include "encoding/encoding.h"
#include "json/json.h"
#include "model/source.h"

namespace nibble::pipeline {

// Writes config.json and the tokenizer's files into `folder` for a model whose weights are `type`. From a folder they
// are copied (config.json with its dtype set); from a GGUF file they are made. `quantization` becomes the config's
// quantization_config unless it is null. Throws Error{kUnsupported} when that cannot be.
void write_hf_files(const model::ModelSource& source, const encoding::EncodingInfo& type,
                    const json::Value& quantization, const std::filesystem::path& folder);

// What a request says about the size of weight files; throws Error{kInvalidArgument} for one size with a .gguf output.
std::uint64_t shard_bytes(std::uint64_t asked, const std::filesystem::path& output);

}  // namespace nibble::pipeline
