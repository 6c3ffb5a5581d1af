// nibble merge: adapters into the weights of a model.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

Command merge_command();

}  // namespace nibble::cli
