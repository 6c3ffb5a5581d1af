// nibble plan: says whether a model fits, and in what.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

Command plan_command();

}  // namespace nibble::cli
