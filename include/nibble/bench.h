// How fast a model runs on this machine, beside what the machine can do and beside other programs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "nibble/report.h"
#include "nibble/run_context.h"

namespace nibble {

struct BenchRequest {
  std::filesystem::path model;
  std::int64_t prompt = 512;          // tokens of the prefill; 0: skip
  std::int64_t generate = 64;         // tokens decoded one by one; 0: skip
  std::int64_t depth = 0;             // tokens in the cache before either begins
  int batch = 1;                      // sequences that decode together
  int repetitions = 3;                // after a warm-up
  std::vector<std::string> adapters;  // LoRA, run beside the weights: "PATH" or "PATH:SCALE"
  std::string kv_cache;               // as GenerationSettings has it
  // Shell commands that measure other programs, run in turn with ours, each once a repetition. They print what
  // llama-bench prints (-o json or its table) or what `nibble bench --json - -q` prints.
  std::vector<std::string> compare;
  std::uint64_t roofline_bytes = std::uint64_t{1} << 30;  // of memory read to find its bandwidth; 0: no limits measured
};

// Keys prefill_tok_s and decode_tok_s are medians over the repetitions; decode_bandwidth_fraction and
// prefill_peak_fraction set them against the limits measured in the same run. Throws Error{kInternal} when a fraction
// is above 1: then the limit was measured wrong.
Report bench(const RunContext& run, const BenchRequest& request);

}  // namespace nibble
