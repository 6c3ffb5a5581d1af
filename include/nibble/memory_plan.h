// Does a model fit, and in what: the memory that weights, cache, activations and training take in each format.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/report.h"

namespace nibble {

struct MemoryPlanRequest {
  std::filesystem::path model;        // a model, or a config.json alone; empty: only `parameters` is known
  double parameters = 0;              // of a model nothing more is known of
  std::int64_t context = 0;           // tokens; 0: what the model was trained for, at most 8192
  std::int64_t batch = 1;             // sequences at a time
  std::vector<std::uint64_t> memory;  // sizes to hold the model against, bytes; empty: this machine's RAM
  std::vector<std::uint64_t> vram;    // likewise of graphics memory; when both are empty it is detected
  std::string goal = "run";           // "run", "finetune", "int8"
  std::string kv_cache = "f16";       // as GenerationSettings has it
};

// Throws Error{kInvalidArgument} for a wrong request, and what opening the model throws.
Report plan_memory(const MemoryPlanRequest& request);

// "24G", "24GB", "16GiB", "512M", "8e9": bytes. "671B", "8.03B", "7M": parameters. Throw Error{kInvalidArgument}.
std::uint64_t parse_memory(std::string_view text);
double parse_parameters(std::string_view text);

}  // namespace nibble
