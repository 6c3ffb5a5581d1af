// nibble calibrate: statistics of the inputs of each linear, saved and merged.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

Command calibrate_command();

}  // namespace nibble::cli
