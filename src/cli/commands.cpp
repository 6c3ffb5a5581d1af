// The list of commands: one line each, in the order help shows them.
#include <vector>

#include "cli/command.h"
#include "cli/command_inspect.h"

namespace nibble::cli {

std::span<const Command> all_commands() {
  static const std::vector<Command> commands = {
      inspect_command(),
  };
  return commands;
}

}  // namespace nibble::cli
