// nibble lora: what is in an adapter, and the other form of it.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

Command lora_command();

}  // namespace nibble::cli
