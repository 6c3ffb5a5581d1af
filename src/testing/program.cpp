#include "testing/program.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "base/atomic_file.h"
#include "base/error.h"

namespace nibble::testing {

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "nibble-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) fail(ErrorCode::kIo, "cannot make a temporary folder '{}'", pattern);
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

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
