// Where a model's activations have outliers: what flows into each linear of each block, before and after transforms.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "nibble/report.h"
#include "nibble/run_context.h"

namespace nibble {

struct OutlierRequest {
  std::filesystem::path model;
  std::filesystem::path text;
  std::int64_t context = 0;             // tokens per chunk; 0: 512, or what the model was trained for if less
  std::int64_t chunks = 0;              // 0: all
  double threshold = 6;                 // an input of that magnitude or more is an outlier
  std::vector<std::string> transforms;  // as of QuantizeRequest; empty: only the model as it is
  std::string transform_type = "w8a8";  // what they are made for: an encoding, or one with inputs
  std::filesystem::path calib;          // text that transforms learn from
  std::int64_t calib_tokens = 32768;    // of it, at most
  std::int64_t calib_context = 0;       // tokens of a sequence; 0: as `context`
  std::uint64_t seed = 0;               // of rotations
  std::filesystem::path plot;           // writes max |x| and kurtosis over depth as SVG; empty: none
};

// Block by block, by the exact path, on the numbers that a file's weights decode to. Holds one block, and the hidden
// states of the texts (on disk above a limit). Throws Error for what cannot be opened or read, for a text shorter than
// one chunk, and naming the block for inputs that are NaN or infinite.
Report find_outliers(const RunContext& run, const OutlierRequest& request);

}  // namespace nibble
