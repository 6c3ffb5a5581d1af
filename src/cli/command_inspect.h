// nibble inspect: what is in a model.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

Command inspect_command();

}  // namespace nibble::cli
