// Runs a program and keeps what it said.
#pragma once

#include <filesystem>
#include <string>

namespace nibble::testing {

struct ProgramResult {
  int exit_code = -1;  // as a shell gives it: 128 + n when killed by signal n
  std::string out;
  std::string err;
};

// Runs a shell command line and waits.
ProgramResult run_program(const std::string& command_line);

// A new folder that is removed with everything in it at the end of the scope.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace nibble::testing
