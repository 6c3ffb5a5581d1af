// `nibble train` as a user meets it: killed and resumed, and what it says of input that it cannot use.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/atomic_file.h"
#include "base/rng.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::ProgramResult;

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class TrainCommand : public ::testing::Test {
 protected:
  TrainCommand() {
    json::Value config = testing::tiny_config("llama");
    config.set("hidden_size", 64);
    config.set("num_attention_heads", 4);
    testing::write_tiny_model(folder_.path() / "model", config);
    std::string text;
    static constexpr const char* kWords[] = {"the", "ship", "went", "over", "a", "calm", "sea", "and", "back", "home"};
    for (std::uint64_t i = 0; i < 1500; ++i) text += std::string(kWords[random_bits(4, 0, i) % 10]) + " ";
    write_file_atomically(folder_.path() / "text.txt", text);
  }
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  // What the shell makes of a training of the tiny model into `out`.
  std::string call(const std::string& out, const std::string& options) const {
    return std::string(NIBBLE_PROGRAM) + " train -q --threads 2 " + path("model") + " -o " + path(out) + " " + options;
  }
  ProgramResult train(const std::string& out, const std::string& options) const {
    return testing::run_program(call(out, options));
  }
  ProgramResult train_text(const std::string& out, const std::string& options) const {
    return train(out, "--text " + path("text.txt") + " --ctx 32 --batch 2 --steps 30 --save-every 4 " + options);
  }
  // The same, killed once a few steps are taken.
  ProgramResult kill_training(const std::string& out, const std::string& options) const {
    const std::string curve = path(out) + ".run/loss.csv";
    return testing::run_program(
        call(out, "--text " + path("text.txt") + " --ctx 32 --batch 2 --steps 30 --save-every 4 " + options) +
        " & pid=$!; while [ $(cat " + curve + " 2>/dev/null | wc -l) -lt 7 ]; do sleep 0.01; done; kill -KILL $pid; " +
        "wait $pid");
  }
  void expect_same_when_resumed(const std::string& options) const {
    SCOPED_TRACE(options);
    for (const char* name : {"straight", "killed", "straight.run", "killed.run"}) fs::remove_all(path(name));
    const ProgramResult straight = train_text("straight", options);
    ASSERT_EQ(straight.exit_code, 0) << straight.err;
    EXPECT_EQ(kill_training("killed", options).exit_code, 137);
    EXPECT_FALSE(fs::exists(path("killed")));
    const ProgramResult resumed = train_text("killed", options + " --resume");
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
    const std::string expected = bytes_of(path("straight/model.safetensors"));
    EXPECT_FALSE(expected.empty());
    EXPECT_TRUE(bytes_of(path("killed/model.safetensors")) == expected);
  }
  // One line that names all of the words, and nothing under the output's name.
  void expect_refused(const std::string& options, const std::vector<std::string>& words) const {
    SCOPED_TRACE(options);
    const ProgramResult result = train("refused", options);
    EXPECT_NE(result.exit_code, 0);
    EXPECT_EQ(result.err.rfind("nibble: error: ", 0), 0U) << result.err;
    for (const std::string& word : words) EXPECT_THAT(result.err, HasSubstr(word));
    EXPECT_EQ(std::ranges::count(result.err, '\n'), 1) << result.err;
    EXPECT_FALSE(fs::exists(path("refused")));
  }

  testing::TemporaryFolder folder_;
};

TEST_F(TrainCommand, KilledAndResumedItGivesTheSameBytes) {
  expect_same_when_resumed("--optimizer adamw8bit --accumulate 2");
}

using TrainCommandSlow = TrainCommand;

TEST_F(TrainCommandSlow, KilledAndResumedIntoFewBitsItGivesTheSameBytes) {
  expect_same_when_resumed("--qat int4-g32");
  expect_same_when_resumed("--efficientqat int3-g32-asym --block-tokens 256");
}

TEST_F(TrainCommand, ResumesOnlyTheSameRun) {
  const std::string options = "--text " + path("text.txt") + " --ctx 32 ";
  ASSERT_EQ(train("out", options + "--steps 3").exit_code, 0);
  fs::remove_all(path("out"));
  for (const auto& [changed, name] : {std::pair{"--steps 4", "steps"},
                                      {"--steps 3 --lr 0.5", "lr"},
                                      {"--steps 3 --distill 0.5", "distill"},
                                      {"--steps 3 --batch 4", "sequences"},
                                      {"--steps 3 --held-out 0.3", "examples"},
                                      {"--steps 3 --seed 2", "seed"},
                                      {"--steps 3 --optimizer lion", "optimizer"}}) {
    const ProgramResult result = train("out", options + changed + " --resume");
    EXPECT_NE(result.exit_code, 0) << changed;
    EXPECT_THAT(result.err, HasSubstr(name)) << changed;
  }
}

TEST_F(TrainCommand, RefusesWhatItCannotTrainOn) {
  write_file_atomically(path("bad.jsonl"), "{\"text\": \"a calm sea\"}\n{\"text\": \"a calm\n");
  write_file_atomically(path("other.jsonl"), "{\"text\": \"a calm sea\"}\n\n{\"words\": 3}\n");
  write_file_atomically(path("empty.txt"), "");
  write_file_atomically(path("empty.jsonl"), "");
  const std::string text = "--text " + path("text.txt") + " ";
  expect_refused("--data " + path("bad.jsonl"), {"bad.jsonl", "line 2"});
  expect_refused("--data " + path("other.jsonl"), {"other.jsonl", "line 3"});
  expect_refused("--text " + path("empty.txt"), {"empty.txt"});
  expect_refused("--data " + path("empty.jsonl"), {"empty.jsonl"});
  expect_refused("--text " + path("none.txt"), {"none.txt"});
  expect_refused("", {"--text", "--data"});
  expect_refused(text + "--ctx 500", {"500", "192"});
  expect_refused(text + "--ctx -3", {"-3"});
  expect_refused(text + "--ctx 1", {"1"});
  expect_refused(text + "--qat q9_z", {"q9_z"});
  expect_refused(text + "--efficientqat q9_z", {"q9_z"});
  expect_refused(text + "--qat q4_0 --efficientqat q4_0", {"--qat", "--efficientqat"});
  expect_refused(text + "--efficientqat int4-g32 --preset papers", {"papers"});
  expect_refused(text + "--optimizer newton", {"newton"});
  expect_refused(text + "--schedule sine", {"sine"});
  expect_refused(text + "--steps -1", {"-1"});
  expect_refused(text + "--held-out 1.5", {"1.5"});
  expect_refused(text + "--lr nan", {"nan"});
  expect_refused(text + "--resume", {"refused.run"});
}

TEST_F(TrainCommand, SaysWhereTheLossIsNoNumberAnyMore) {
  const ProgramResult result = train_text("out", "--lr 1e30 --warmup 0");
  EXPECT_NE(result.exit_code, 0);
  EXPECT_THAT(result.err, AllOf(HasSubstr("step 2"), HasSubstr("the loss is"), HasSubstr("out.run/state.safetensors")));
  EXPECT_FALSE(fs::exists(path("out")));
  EXPECT_TRUE(fs::exists(path("out.run/state.safetensors")));
}

}  // namespace
}  // namespace nibble::cli
