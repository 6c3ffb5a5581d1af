// nibble imatrix: collects an importance matrix.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

Command imatrix_command();

}  // namespace nibble::cli
