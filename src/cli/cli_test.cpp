// The program as a user meets it: exit codes, error lines, the progress display.
#include <gtest/gtest.h>

#include "base/atomic_file.h"
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

const std::string kModel = std::string(NIBBLE_SOURCE_DIR) + "/models/books-7m";

TEST(Cli, InspectTellsWhatIsInAModel) {
  const testing::TemporaryFolder folder;
  const ProgramResult result = nibble("inspect " + kModel + " --json " + folder / "report.json");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("7.34M parameters"), std::string::npos) << result.out;
  const std::string report = read_file(folder / "report.json");
  for (const char* part : {"\"parameters\": 7344384", "\"architecture\": \"llama\"", "\"bits_per_weight\": 16.0", "\"tensors\": ["}) {
    EXPECT_NE(report.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(nibble("inspect " + kModel + " --json -").out, report) << "'-' prints the report and nothing else";
}

TEST(Cli, ErrorsAreOneLineOnStandardError) {
  const ProgramResult result = nibble("inspect /no/such/model.gguf");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_TRUE(result.out.empty());
  EXPECT_EQ(result.err.rfind("nibble: error: ", 0), 0u) << result.err;
  EXPECT_NE(result.err.find("/no/such/model.gguf"), std::string::npos) << result.err;
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
