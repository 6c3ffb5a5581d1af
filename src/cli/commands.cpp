// The list of commands: one line each, in the order help shows them.
#include <vector>

#include "cli/bench_command.h"
#include "cli/command.h"
#include "cli/command_eval.h"
#include "cli/command_imatrix.h"
#include "cli/command_inspect.h"
#include "cli/command_plan.h"

namespace nibble::cli {

std::span<const Command> all_commands() {
  static const std::vector<Command> commands = {
      inspect_command(), plan_command(), imatrix_command(), eval_command(), bench_command(),
  };
  return commands;
}

}  // namespace nibble::cli
