// The program as a user meets it: exit codes, error lines, the progress display.
#include <gtest/gtest.h>

#include <filesystem>

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
  for (const char* part :
       {"\"parameters\": 7344384", "\"architecture\": \"llama\"", "\"bits_per_weight\": 16.0", "\"tensors\": ["}) {
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

// Runs `nibble quantize` on a model that takes a while, sends it `signal` again and again, and waits.
ProgramResult interrupted(const testing::TemporaryFolder& folder, const std::string& signal) {
  const std::string config = folder / "config.json";
  write_file_atomically(
      config, R"({"model_type": "llama", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8,
      "num_attention_heads": 16, "vocab_size": 512, "tie_word_embeddings": true})");
  EXPECT_EQ(nibble("synth " + config + " -o " + folder / "in.gguf -q").exit_code, 0);
  return testing::run_program(std::string(NIBBLE_PROGRAM) + " quantize --threads 1 --type q3_k_m " +
                              folder / "in.gguf" + " -o " +
                              folder / "out.gguf & pid=$!; for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1; kill -" + signal +
                              " $pid 2>/dev/null; done; wait $pid");
}

void expect_only_inputs(const testing::TemporaryFolder& folder) {
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    const std::string name = entry.path().filename().string();
    EXPECT_TRUE(name == "in.gguf" || name == "config.json") << name;
  }
}

TEST(Cli, InterruptLeavesNothing) {
  const testing::TemporaryFolder folder;
  EXPECT_EQ(interrupted(folder, "INT").exit_code, 130);
  expect_only_inputs(folder);
}

TEST(Cli, KillLeavesNothing) {
  const testing::TemporaryFolder folder;
  EXPECT_EQ(interrupted(folder, "KILL").exit_code, 128 + 9);
  expect_only_inputs(folder);
}

TEST(Cli, FullDiskAndFoldersThatCannotBeWritten) {
  const testing::TemporaryFolder folder;
  const std::string call = std::string(NIBBLE_PROGRAM) + " quantize -q --type q8_0 " + kModel + " -o ";
  ProgramResult result =
      testing::run_program("ulimit -f 1000; " + call + folder / "out.gguf");  // 512 KB, or 1 MB where blocks are larger
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find(": cannot reserve "), std::string::npos) << result.err;
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  for (const char* place : {"/proc/out.gguf", "/no/such/folder/out.gguf", "/dev/null/out.gguf"}) {
    result = testing::run_program(call + place);
    EXPECT_EQ(result.exit_code, 1) << place;
    EXPECT_NE(result.err.find(place), std::string::npos) << result.err;
  }
}

TEST(Cli, QuantizeAndConvertAsTheyAreCalled) {
  const testing::TemporaryFolder folder;
  const ProgramResult converted = nibble("convert " + kModel + " -o " + folder / "f16.gguf --type f16");
  ASSERT_EQ(converted.exit_code, 0) << converted.err;
  const ProgramResult result = nibble("quantize " + folder / "f16.gguf -o " +
                                      folder /
                                          "q.gguf --type Q4_K_M --method rtn --override 'attn_k=q8_0'"
                                          " --override 'up_proj=q5_k' --threads 2 --json " +
                                      folder / "q.json");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("wrote " + folder / "q.gguf"), std::string::npos) << result.out;
  const std::string report = read_file(folder / "q.json");
  for (const char* part :
       {"\"threads\": 2", "\"recipe\": \"q4_k_m\"", "\"note\": \"override 'attn_k'\"", "\"snr_db\": "}) {
    EXPECT_NE(report.find(part), std::string::npos) << part;
  }
  const std::string sharded = "convert " + kModel + " --type f16 --shard-size 5MB -o ";
  EXPECT_EQ(nibble(sharded + folder / "shards").exit_code, 0);
  EXPECT_TRUE(std::filesystem::exists(folder / "shards/model-00004-of-00004.safetensors"));
  EXPECT_EQ(nibble(sharded + folder / "shards.gguf").exit_code, 2);
  const ProgramResult plan = nibble("quantize " + kModel + " -o " + folder / "none.gguf --type q6_k --dry-run");
  EXPECT_EQ(plan.exit_code, 0);
  EXPECT_NE(plan.out.find("would write"), std::string::npos) << plan.out;
  EXPECT_FALSE(std::filesystem::exists(folder / "none.gguf"));
}

TEST(Cli, UnknownTypeIsAUsageErrorThatNamesNearOnes) {
  const ProgramResult result = nibble("quantize " + kModel + " -o out.gguf --type q4km");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("q4_k_m"), std::string::npos) << result.err;
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
