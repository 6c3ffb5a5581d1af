// nibble eval: measures what quantizing cost.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

Command eval_command();

}  // namespace nibble::cli
