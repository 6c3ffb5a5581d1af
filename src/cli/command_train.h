// nibble train: a model on, from scratch, or into few bits.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

Command train_command();

}  // namespace nibble::cli
