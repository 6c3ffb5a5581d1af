// nibble quantize: a model into smaller weights.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

Command quantize_command();

}  // namespace nibble::cli
