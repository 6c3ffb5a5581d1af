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

TEST(Cli, ListsMethodsWithoutAModel) {
  const ProgramResult result = nibble("quantize --list-methods");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const char* word : {"rtn", "search", "gptq", "adaround", "kmeans", "arXiv 2210.17323", "compressed-tensors"})
    EXPECT_NE(result.out.find(word), std::string::npos) << word;
}

TEST(Cli, AMixForASize) {
  const std::string call =
      "quantize " + std::string(NIBBLE_SOURCE_DIR) + "/models/books-7m -o out.gguf --type auto --dry-run";
  const ProgramResult mix = nibble(call + " --bpw 4.5");
  EXPECT_EQ(mix.exit_code, 0) << mix.err;
  EXPECT_NE(mix.out.find("at most 4131216 bytes"), std::string::npos) << mix.out;
  for (const auto& [options, word] : {std::pair{"", "--size"},
                                      {" --size 4.5XB", "4.5XB"},
                                      {" --size 1MB", "too few"},
                                      {" --size 4MB --bpw 4", "--bpw"}}) {
    const ProgramResult wrong = nibble(call + options);
    EXPECT_NE(wrong.exit_code, 0);
    EXPECT_NE(wrong.err.find(word), std::string::npos) << wrong.err;
  }
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

// A folder with a template that shows the messages as plain text.
std::string chat_call(const testing::TemporaryFolder& folder) {
  write_file_atomically(
      folder / "chat.jinja",
      "{{ bos_token }}{% for m in messages %}{% if m.role == 'critic' %}{{ raise_exception('no') }}{% endif %}"
      "{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:");
  return "chat -q " + kModel + " --template " + folder / "chat.jinja ";
}

TEST(Cli, ChatAnswersEveryLineOrOneMessage) {
  const testing::TemporaryFolder folder;
  const std::string call = chat_call(folder) + " -n 8 ";
  const ProgramResult one =
      nibble(call + "--system 'Be a captain.' -p 'Where is the whale?' --json " + folder / "one.json");
  ASSERT_EQ(one.exit_code, 0) << one.err;
  EXPECT_FALSE(one.out.empty());
  EXPECT_NE(one.err.find("text 8 tokens"), std::string::npos) << one.err;
  EXPECT_NE(read_file(folder / "one.json").find("\"stop_reason\": \"max_tokens\""), std::string::npos);
  const std::string program = std::string(NIBBLE_PROGRAM) + " ";
  const ProgramResult lines =
      testing::run_program("printf 'Where is the whale?\\nAnd the ship?\\n/reset\\nWhere is the whale?\\n' | " +
                           program + call + "--json " + folder / "all.json");
  ASSERT_EQ(lines.exit_code, 0) << lines.err;
  EXPECT_TRUE(lines.err.empty()) << lines.err;
  const std::string report = read_file(folder / "all.json");
  EXPECT_EQ(report.front(), '[');
  std::size_t n = 0;
  for (std::size_t at = report.find("reused_tokens"); at != std::string::npos;
       at = report.find("reused_tokens", at + 1))
    ++n;
  EXPECT_EQ(n, 3u);
  const std::string first = lines.out.substr(0, lines.out.find('\n') + 1);
  EXPECT_TRUE(lines.out.ends_with(first)) << "after a reset the same question has the same answer: " << lines.out;
}

TEST(Cli, ChatTemplatesGoToGgufAndBack) {
  namespace fs = std::filesystem;
  const testing::TemporaryFolder folder;
  const std::string model = folder / "model";
  fs::copy(kModel, model);
  fs::create_directory(model + "/additional_chat_templates");
  write_file_atomically(model + "/chat_template.jinja", "{{ bos_token }}default {{ messages | length }}");
  write_file_atomically(model + "/additional_chat_templates/rag.jinja", "{{ raise_exception('no documents') }}");
  ASSERT_EQ(nibble("convert -q --type f16 " + model + " -o " + folder / "m.gguf").exit_code, 0);
  ASSERT_EQ(nibble("convert -q --type f16 " + folder / "m.gguf" + " -o " + folder / "again").exit_code, 0);
  ASSERT_EQ(nibble("convert -q --type f16 " + model + " -o " + folder / "copy").exit_code, 0);
  for (const char* name : {"m.gguf", "again", "copy"}) {
    const std::string call = "chat -q -n 2 -p hello " + folder / name;
    EXPECT_EQ(nibble(call).exit_code, 0) << name;
    const ProgramResult refused = nibble(call + " --template rag");
    EXPECT_EQ(refused.exit_code, 2) << name;
    EXPECT_NE(refused.err.find("no documents"), std::string::npos) << refused.err;
  }
}

TEST(Cli, ChatWithoutATemplateSaysWhatToDo) {
  const ProgramResult result = nibble("chat -p hello " + kModel);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("--template FILE"), std::string::npos) << result.err;
  const testing::TemporaryFolder folder;
  write_file_atomically(folder / "bad.jinja", "a\n{% if %}");
  const ProgramResult bad = nibble("chat -p hello " + kModel + " --template " + folder / "bad.jinja");
  EXPECT_EQ(bad.exit_code, 1);
  EXPECT_NE(bad.err.find("bad.jinja: line 2: "), std::string::npos) << bad.err;
  EXPECT_NE(nibble("chat -p hello " + kModel + " --template none.jinja").err.find("none.jinja"), std::string::npos);
  for (const char* bias : {"1", "=1", "x=1", "1=x", "1=", "99999=1"}) {
    EXPECT_EQ(nibble("run -n 1 -p a " + kModel + " --logit-bias " + bias).exit_code, 2) << bias;
  }
}

TEST(Cli, InterruptEndsTheAnswerAndNotTheChat) {
  const testing::TemporaryFolder folder;
  const std::string out = folder / "out.txt";
  // Token 2 ends texts: without it the answer goes on until the context is full.
  const ProgramResult result = testing::run_program(
      "(printf 'Where is the whale?\\n'; while [ ! -e " + out +
      ".done ]; do sleep 0.05; done; printf 'And the ship?\\n') | " + NIBBLE_PROGRAM + " " + chat_call(folder) +
      "--exact --threads 1 --ctx 20000 --logit-bias 2=-inf --json " + folder / "all.json" + " > " + out +
      " & pid=$!; while [ ! -s " + out + " ]; do sleep 0.01; done; kill -INT $pid; touch " + out +
      ".done; sleep 1; kill -INT $pid; wait $pid");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::string report = read_file(folder / "all.json");
  const std::string stopped = "\"stop_reason\": \"stopped\"";
  const std::size_t first = report.find(stopped);
  ASSERT_NE(first, std::string::npos) << report;
  EXPECT_NE(report.find(stopped, first + 1), std::string::npos) << report;
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
