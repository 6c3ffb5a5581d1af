// The measuring commands as a user calls them: what goes to standard output, what to standard error, exit codes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/atomic_file.h"
#include "testing/program.h"

namespace nibble::cli {
namespace {

using ::testing::HasSubstr;
using testing::ProgramResult;

const std::string kRoot = NIBBLE_SOURCE_DIR;
const std::string kModel = kRoot + "/models/books-7m";
const std::string kText = kRoot + "/text/books-eval.txt";

ProgramResult nibble(const std::string& arguments) {
  return testing::run_program(std::string(NIBBLE_PROGRAM) + " " + arguments);
}

TEST(MeasureCommands, PlanOfParametersAlone) {
  const ProgramResult result = nibble("plan --params 671B --memory 512G --memory 1TiB");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("671B parameters"));
  EXPECT_THAT(result.out, HasSubstr("with 512 GB: "));
  EXPECT_EQ(nibble("plan").exit_code, 2);
  EXPECT_EQ(nibble("plan --params lots").exit_code, 2);
  EXPECT_EQ(nibble("plan --params 7B --goal dance").exit_code, 2);
}

TEST(MeasureCommands, PlanAsJsonAlone) {
  const ProgramResult result = nibble("plan " + kModel + " --json -");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out.front(), '{');
  EXPECT_THAT(result.out, HasSubstr("\"kv_bytes_per_token\": 4096"));  // 2 * 8 layers * 2 heads * 64 * 2 bytes
}

TEST(MeasureCommands, EvalWritesItsReport) {
  const testing::TemporaryFolder folder;
  const ProgramResult result = nibble("eval " + kModel + " --text " + kText + " --ctx 64 --chunks 2 --reference " +
                                      kModel + " --exact --json " + (folder / "eval.json"));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("perplexity"));
  const std::string json = read_file(folder / "eval.json");
  for (const char* key :
       {"perplexity", "kld_mean", "kld_p999", "top1", "bits_per_weight", "perplexity_exact", "kld_mean_exact"}) {
    EXPECT_THAT(json, HasSubstr("\"" + std::string(key) + "\": "));
  }
  EXPECT_EQ(nibble("eval " + (folder / "absent") + " --text " + kText).exit_code, 1);
  EXPECT_EQ(nibble("eval " + kModel).exit_code, 2);
}

TEST(MeasureCommands, EvalAnswersTasks) {
  const std::string tasks = kRoot + "/text/books-tasks.jsonl";
  const ProgramResult result = nibble("eval " + kModel + " --tasks " + tasks + " --tasks " + tasks);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("task books-next: multiple choice, 12 items"));
  EXPECT_THAT(result.out, HasSubstr("task books-last: last word, 12 items"));
}

TEST(MeasureCommands, EvalFindsOutliers) {
  const testing::TemporaryFolder folder;
  const std::string outliers = "eval " + kModel + " --outliers --text " + kText + " --ctx 64 --chunks 2";
  const ProgramResult result = nibble(outliers + " --threshold 5 --transform rotate --transform smoothquant:alpha=0.7" +
                                      " --calib " + kRoot + "/text/books-calib.txt --calib-tokens 256 --plot " +
                                      (folder / "plot.svg") + " --json " + (folder / "outliers.json"));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("2 chunks of 64 tokens; outliers are |x| >= 5"));
  EXPECT_THAT(result.out, HasSubstr("before -> after rotate + smoothquant:alpha=0.7, learned from 256 tokens"));
  const std::string json = read_file(folder / "outliers.json");
  for (const char* key : {"kurtosis", "channel_peak", "features", "ever", "affected_tokens", "before", "after"})
    EXPECT_THAT(json, HasSubstr("\"" + std::string(key) + "\": "));
  EXPECT_THAT(read_file(folder / "plot.svg"), HasSubstr("ffn_down after"));
  for (const std::string bad : {" --exact", " --transform smoothquant", " --transform spin", " --threshold 0"})
    EXPECT_EQ(nibble(outliers + bad).exit_code, 2) << bad;
  EXPECT_THAT(nibble(outliers + " --tensors").err, HasSubstr("give --tensors in another run"));
  EXPECT_EQ(nibble("eval " + kModel + " --outliers").exit_code, 2);
  EXPECT_EQ(nibble("eval " + kModel + " --text " + kText + " --transform rotate").exit_code, 2);
}

TEST(MeasureCommands, RunKeepsTheTextApart) {
  const ProgramResult result = nibble("run " + kModel + " -p 'Once upon a time' -n 8 --temp 0.7 --seed 5 -q");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, ::testing::StartsWith("Once upon a time"));
  EXPECT_THAT(result.err, HasSubstr("text 8 tokens"));
  EXPECT_EQ(nibble("run " + kModel + " -p x -n 8 --temp 0.7 --seed 5 -q").exit_code, 0);
  EXPECT_EQ(nibble("run " + kModel + " -p x --top-p 7").exit_code, 2);
}

TEST(MeasureCommands, ImatrixAndBench) {
  const testing::TemporaryFolder folder;
  const std::string out = folder / "imatrix.dat";
  ProgramResult result = nibble("imatrix " + kModel + " --text " + kText + " -o " + out + " --ctx 64 --chunks 2");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(std::filesystem::exists(out));
  result = nibble("imatrix --merge " + out + " --merge " + out + " -o " + (folder / "both.gguf") + " --ctx 64");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr(": 4 chunks of 64 tokens"));
  result = nibble("imatrix --merge " + (folder / "both.gguf") + " -o " + (folder / "again.gguf"));
  EXPECT_THAT(result.out, HasSubstr(": 4 chunks of 64 tokens")) << result.err;
  result = nibble("bench " + kModel + " -p 8 -n 2 -r 1 --json -");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("\"decode_tok_s\": "));
}

TEST(MeasureCommands, CalibrateForQuantize) {
  const testing::TemporaryFolder folder;
  const std::string out = folder / "statistics.safetensors";
  ProgramResult result =
      nibble("calibrate " + kModel + " --text " + kText + " --calib-tokens 512 --calib-ctx 64 -o " + out);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("warning: 8 inputs"));
  result = nibble("calibrate --merge " + out + " --merge " + out);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("over 1024 tokens"));
  result =
      nibble("quantize " + kModel + " -t q4_0 --method search --calib-stats " + out + " -o " + (folder / "q.gguf"));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(nibble("calibrate").exit_code, 2);
}

}  // namespace
}  // namespace nibble::cli
