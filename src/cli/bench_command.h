// nibble bench: measures speed.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

Command bench_command();

}  // namespace nibble::cli
