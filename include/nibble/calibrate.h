// Statistics of what flows into the linears of an unquantized model: collected from a text, saved, merged, used by
// `quantize` in place of a text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "nibble/report.h"
#include "nibble/run_context.h"

namespace nibble {

struct CalibrateRequest {
  std::filesystem::path model;  // may be empty when only files are merged
  std::filesystem::path text;   // the same
  std::filesystem::path out;    // may be empty when files are only looked at
  std::int64_t tokens = 32768;  // of the text, at most
  std::int64_t context = 0;     // tokens of a sequence; 0: 512, or what the model was trained for if less
  std::string statistics = "gram,held-out,ranges";  // of the text; files to merge must hold the same
  std::vector<std::filesystem::path> merge;         // statistics to add
  bool dry_run = false;
};

// Throws Error for files of other models or statistics; nothing is left under the output's name then.
Report calibrate(const RunContext& run, const CalibrateRequest& request);

}  // namespace nibble
