// The program as a user meets it: exit codes, error lines, the progress display.
#include <gtest/gtest.h>

#include "cli/progress_bar.h"
#include "testing/program.h"

namespace nibble::cli {
namespace {

using testing::ProgramResult;

ProgramResult nibble(const std::string& arguments) {
  return testing::run_program(std::string(NIBBLE_PROGRAM) + " " + arguments);
}

TEST(Cli, HelpAndVersionSucceed) {
  const ProgramResult help = nibble("--help");
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_NE(help.out.find("Usage: nibble"), std::string::npos) << help.out;
  EXPECT_EQ(nibble("--version").exit_code, 0);
}

TEST(Cli, WrongCallIsAUsageError) {
  for (const char* arguments : {"", "no-such-command", "--no-such-option"}) {
    const ProgramResult result = nibble(arguments);
    EXPECT_EQ(result.exit_code, 2) << arguments;
    EXPECT_EQ(result.err.rfind("nibble: error: ", 0), 0u) << result.err;
    EXPECT_TRUE(result.out.empty()) << result.out;
  }
}

TEST(ProgressLine, ShowsShareSpeedAndTimeLeft) {
  EXPECT_EQ(progress_line("quantize", 500'000'000, 2'000'000'000, "bytes", 2.0, 0),
            "quantize  25%  500 MB of 2.00 GB  250 MB/s  left 6.0s");
  EXPECT_EQ(progress_line("eval", 40, 40, "tokens", 8.0, 8),
            "eval [########] 100%  40 tokens of 40 tokens  5.00 tokens/s  took 8.0s");
  EXPECT_EQ(progress_line("eval", 0, 0, "tokens", 0.0, 4), "eval [....]   0%  0 tokens of 0 tokens");
}

}  // namespace
}  // namespace nibble::cli
