// nibble quantize: a model into smaller weights.
#pragma once

#include <functional>

#include "cli/command.h"
#include "nibble/quantize.h"

namespace nibble::cli {

Command quantize_command();

// Its options, for commands that end in the same; what is returned is to be called after the command line was parsed.
// `request` must live until then.
std::function<void()> add_quantize_options(CLI::App& app, QuantizeRequest& request);

}  // namespace nibble::cli
