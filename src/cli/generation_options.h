// The options that `run` and `chat` share.
#pragma once

#include "cli/command.h"
#include "nibble/generation_settings.h"

namespace nibble::cli {

// Adds them to `app`; `settings` must live until the command line is parsed.
void add_generation_options(CLI::App& app, GenerationSettings& settings);

}  // namespace nibble::cli
