// The list of commands: one line each, in the order help shows them.
#include <vector>

#include "cli/command.h"

namespace nibble::cli {

std::span<const Command> all_commands() {
  static const std::vector<Command> commands = {};
  return commands;
}

}  // namespace nibble::cli
