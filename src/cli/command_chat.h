// nibble chat: a conversation in turns.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

Command chat_command();

}  // namespace nibble::cli
