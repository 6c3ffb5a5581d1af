#include "testing/program.h"

#include <sys/wait.h>

#include <cstdlib>

#include "base/atomic_file.h"

namespace nibble::testing {

ProgramResult run_program(const std::string& command_line) {
  const TemporaryFolder folder;
  const int status = std::system(("{ " + command_line + "\n} >" + folder / "out" + " 2>" + folder / "err").c_str());
  ProgramResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.out = read_file(folder / "out");
  result.err = read_file(folder / "err");
  return result;
}

}  // namespace nibble::testing
