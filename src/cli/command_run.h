// nibble run: continues a text.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

Command run_command();

}  // namespace nibble::cli
