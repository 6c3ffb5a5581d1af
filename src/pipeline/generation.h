// What continuing a text and chatting share: from settings to a session and a sampler, and the report of what was
// written.
#pragma once

#include <memory>
#include <string>

#include "base/exec_context.h"
#include "engine/generate.h"
#include "json/json.h"
#include "nibble/generation_settings.h"

namespace nibble::pipeline {

// Throws Error{kInvalidArgument} for settings out of range.
engine::Sampler make_sampler(const GenerationSettings& settings, const token::Tokenizer& tokenizer);
engine::SessionOptions session_options(const GenerationSettings& settings);
std::shared_ptr<const model::Model> load_model(ExecContext& context,
                                               const std::shared_ptr<const model::ModelSource>& source,
                                               const GenerationSettings& settings);

struct GenerationReport {
  std::string line;  // "text 12 tokens, 31.0 tokens/s; end_of_text"
  json::Value json;
};
// `fed`: tokens of the prompt that were computed.
GenerationReport report_generation(const engine::Generated& generated, std::int64_t fed, std::string text);

}  // namespace nibble::pipeline
