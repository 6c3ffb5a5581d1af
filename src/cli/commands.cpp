// The list of commands: one line each, in the order help shows them.
#include <vector>

#include "cli/bench_command.h"
#include "cli/command.h"
#include "cli/command_calibrate.h"
#include "cli/command_chat.h"
#include "cli/command_convert.h"
#include "cli/command_eval.h"
#include "cli/command_imatrix.h"
#include "cli/command_inspect.h"
#include "cli/command_lora.h"
#include "cli/command_merge.h"
#include "cli/command_plan.h"
#include "cli/command_quantize.h"
#include "cli/command_run.h"
#include "cli/command_sweep.h"
#include "cli/command_synth.h"
#include "cli/command_train.h"

namespace nibble::cli {

std::span<const Command> all_commands() {
  static const std::vector<Command> commands = {
      // clang-format off
      inspect_command(),
      plan_command(),
      synth_command(),
      convert_command(),
      quantize_command(),
      merge_command(),
      lora_command(),
      imatrix_command(),
      calibrate_command(),
      eval_command(),
      sweep_command(),
      train_command(),
      run_command(),
      chat_command(),
      bench_command(),
      // clang-format on
  };
  return commands;
}

}  // namespace nibble::cli
