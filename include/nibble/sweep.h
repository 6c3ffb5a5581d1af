// Accuracy against size: a model in many forms, each measured, as a table and a plot.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "nibble/report.h"
#include "nibble/run_context.h"

namespace nibble {

struct SweepRequest {
  std::string model;                               // the unquantized one, and the reference
  std::vector<std::string> types;                  // as of QuantizeRequest
  std::vector<std::string> methods;                // empty: the default of each type
  std::vector<std::string> transforms = {"none"};  // each with every type and method; "rotate+awq": both
  std::vector<std::filesystem::path> texts;        // KL divergence is measured on each
  std::string calib;                               // for methods and transforms that learn from a text
  std::int64_t calib_tokens = 32768;
  int effort = -1;
  std::int64_t context = 0;      // tokens per chunk of the texts; 0: 512
  std::int64_t chunks = 0;       // of each text; 0: all
  std::filesystem::path folder;  // keeps the quantized models; empty: they are removed
  std::filesystem::path svg;     // plot of KL divergence over bits per weight; empty: none
};

// Combinations that cannot be made are rows that say why. Throws Error when nothing can be made, and what opening the
// model or the texts throws.
Report sweep(const RunContext& run, const SweepRequest& request);

}  // namespace nibble
