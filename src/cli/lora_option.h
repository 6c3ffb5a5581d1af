// --lora: of all commands that take adapters.
#pragma once

#include <string>
#include <vector>

#include "cli/command.h"

namespace nibble::cli {

// `adapters` must live until the command line is parsed.
CLI::Option* add_lora_option(CLI::App& app, std::vector<std::string>& adapters, const std::string& what);

}  // namespace nibble::cli
