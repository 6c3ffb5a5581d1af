// nibble sweep: accuracy against size.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

Command sweep_command();

}  // namespace nibble::cli
