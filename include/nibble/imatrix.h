// Importance matrices: how strongly each input of each linear is driven by a text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "nibble/report.h"
#include "nibble/run_context.h"

namespace nibble {

struct ImatrixRequest {
  std::filesystem::path model;
  std::filesystem::path text;  // may be empty when only files are merged
  std::filesystem::path out;
  std::int64_t context = 512;                // tokens per chunk
  std::int64_t chunks = 0;                   // 0: all
  std::string format;                        // "gguf", "dat"; empty: dat if `out` ends in .dat, else gguf
  std::vector<std::filesystem::path> merge;  // importance matrices to add
  bool fast = false;                         // by the fast path instead of the exact one
  bool dry_run = false;
};

Report make_imatrix(const RunContext& run, const ImatrixRequest& request);

}  // namespace nibble
