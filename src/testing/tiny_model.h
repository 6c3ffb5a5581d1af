// Small deterministic models on disk: random weights of any configuration, and the configurations of every
// architecture.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "json/json.h"

namespace nibble::testing {

struct TinyModelOptions {
  std::string encoding = "bf16";  // of the matrices; vectors are f32. f32, f16 or bf16
  std::uint64_t seed = 1;
  bool tokenizer = true;  // byte-level, without merges: 256 bytes, "<s>" 256, "</s>" 257; needs a vocabulary of 258
};

// A configuration of that Hugging Face model type: sizes that are no powers of two (rows divide by 32), grouped heads,
// 2 blocks. Tests add what they are about.
json::Value tiny_config(const std::string& model_type);

struct TinyVariant {
  std::string name;
  json::Value config;
};
// A plain one of every model type that is known, and one for each option any of them has (tied head, biases, windows,
// every rope scaling that GGUF can hold, ...).
std::vector<TinyVariant> tiny_variants();

// Writes config.json, model.safetensors and the tokenizer's files into `folder`, which is made if need be. Matrices are
// normal with variance 2 / cols, norms about 1: activations keep their size from block to block.
void write_tiny_model(const std::filesystem::path& folder, const json::Value& config,
                      const TinyModelOptions& options = {});

}  // namespace nibble::testing
