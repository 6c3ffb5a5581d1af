// LoRA adapters (arXiv 2106.09685) as their files say them: weights under the names of the file's dialect, rows in its
// order. Two forms: a folder of PEFT's (adapter_config.json, adapter_model.safetensors) and a GGUF file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "container/checkpoint.h"

namespace nibble::container::lora {

// What is added to one weight: W (out, in) becomes W + scale * b a.
struct Pair {
  std::string weight;      // "model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight"
  bool embedding = false;  // of a table that rows are looked up in
  std::int64_t rank = 0;
  double scale = 1;
  std::vector<float> a;  // (rank, in)
  std::vector<float> b;  // (out, rank)

  std::int64_t in() const { return static_cast<std::int64_t>(a.size()) / rank; }
  std::int64_t out() const { return static_cast<std::int64_t>(b.size()) / rank; }
};

struct Adapter {
  Kind dialect = Kind::kHuggingFace;  // of names and rows; or kGguf
  std::string name;
  std::string base;  // the model that it was trained on, as PEFT's configuration names it; empty: not said
  std::string arch;  // general.architecture of a GGUF file
  std::vector<Pair> pairs;
  std::vector<std::pair<std::string, Shape>> base_weights;  // of the base, saved along and not read: PEFT saves tables
  // For a folder to be written:
  std::vector<std::string> target_modules;  // names, or ends of names, of the modules
  bool fan_in_fan_out = false;              // the model's linears lie (in, out)
};

// Throws Error naming file and tensor for what is broken (a missing half, ranks that differ, NaN), and {kUnsupported}
// naming the option or tensor for what would make another function than the sum above (DoRA, trained biases, ...).
Adapter read(const std::filesystem::path& path);
Adapter read_peft(const std::filesystem::path& folder);
Adapter read_gguf(const std::filesystem::path& file);

// Both write f32 and appear whole or not at all. A folder says the scale as alpha / rank of each module, a file has one
// alpha for all: the b of pairs with another are scaled.
void write_peft(const Adapter& adapter, const std::filesystem::path& folder);
void write_gguf(const Adapter& adapter, const std::filesystem::path& file);

}  // namespace nibble::container::lora
