// Runs a program and keeps what it said.
#pragma once

#include <string>

#include "base/temporary_folder.h"

namespace nibble::testing {

struct ProgramResult {
  int exit_code = -1;  // as a shell gives it: 128 + n when killed by signal n
  std::string out;
  std::string err;
};

// Runs a shell command line and waits.
ProgramResult run_program(const std::string& command_line);

using nibble::TemporaryFolder;

}  // namespace nibble::testing
