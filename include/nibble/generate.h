// Runs a model: continues a text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "nibble/report.h"
#include "nibble/run_context.h"

namespace nibble {

struct GenerateRequest {
  std::filesystem::path model;
  std::string prompt;
  std::int64_t max_tokens = 128;
  std::int64_t context = 0;  // tokens of room; 0: what the model was trained for
  float temperature = 0;     // 0: always the likeliest token
  int top_k = 0;             // 0: all
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  std::uint64_t seed = 0;        // the same seed gives the same text
  bool ignore_end = false;       // goes on after the model ends the text
  bool exact = false;            // by the exact path, in f32
  std::string kv_cache = "f16";  // f32, f16, q8_0
};

// Gives the text to `on_text` piece by piece, never splitting a character, the prompt first. The report's text is one
// line about the speed. Throws Error{kInvalidArgument} when the prompt does not fit the context or a sampling option is
// out of range.
Report generate_text(const RunContext& run, const GenerateRequest& request,
                     const std::function<void(std::string_view)>& on_text = {});

}  // namespace nibble
