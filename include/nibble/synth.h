// A model of a known shape with random weights, for speed work and tests.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nibble/run_context.h"

namespace nibble {

struct SynthRequest {
  std::string shape;          // built-in name ("llama-3.2-1b") or the path of a config.json
  std::string output;         // .gguf file, or a folder to be made (Hugging Face form)
  std::string dtype = "f16";  // f16, bf16 or f32
  int layers = 0;             // 0: as many as the shape has
  std::uint64_t seed = 0;
  std::uint64_t shard_bytes = 0;  // of a folder's weight files, at most; 0: 5e9
  bool dry_run = false;
};

struct SynthReport {
  std::string shape, architecture, output, dtype;
  std::uint64_t parameters = 0;
  std::uint64_t file_bytes = 0;  // of the weights' files; of a dry run: as predicted
  double seconds = 0;
  bool dry_run = false;
};

// The weights depend on shape, dtype and seed only: not on threads, nor (but for the dialect's row order) on the
// container.
SynthReport synthesize_model(const SynthRequest& request, const RunContext& run = {});
std::string to_json(const SynthReport& report);
std::string to_text(const SynthReport& report);
std::vector<std::string> list_shapes();

}  // namespace nibble
