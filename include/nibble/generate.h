// Runs a model: continues a text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "nibble/generation_settings.h"
#include "nibble/report.h"
#include "nibble/run_context.h"

namespace nibble {

struct GenerateRequest : GenerationSettings {
  std::filesystem::path model;
  std::string prompt;
  std::int64_t max_tokens = 128;
  bool ignore_end = false;  // goes on after the model ends the text
};

// Gives the text to `on_text` piece by piece, never splitting a character, the prompt first. The report's text is one
// line about the speed. Throws Error{kInvalidArgument} when the prompt does not fit the context or a sampling option is
// out of range.
Report generate_text(const RunContext& run, const GenerateRequest& request,
                     const std::function<void(std::string_view)>& on_text = {});

}  // namespace nibble
