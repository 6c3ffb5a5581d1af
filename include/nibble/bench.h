// How fast a model runs on this machine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "nibble/report.h"
#include "nibble/run_context.h"

namespace nibble {

struct BenchRequest {
  std::filesystem::path model;
  std::int64_t prompt = 512;     // tokens of the prefill; 0: skip
  std::int64_t generate = 64;    // tokens decoded one by one; 0: skip
  int repetitions = 3;           // after a warm-up
  std::string kv_cache = "f16";  // f32, f16, q8_0
};

// Keys prefill_tok_s and decode_tok_s are medians over the repetitions.
Report bench(const RunContext& run, const BenchRequest& request);

}  // namespace nibble
