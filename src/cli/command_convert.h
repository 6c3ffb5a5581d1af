// nibble convert: a model into plain weights of another type or container.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

Command convert_command();

}  // namespace nibble::cli
