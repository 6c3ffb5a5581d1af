// States of runs: exact, and refused when they are damaged, cut off or of another run.
#include "train/training_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numeric>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/temporary_folder.h"

namespace nibble::train {
namespace {

using testing::HasSubstr;

class TrainingStateTest : public testing::Test {
 protected:
  TrainingStateTest() {
    std::iota(bytes_.begin(), bytes_.end(), std::uint8_t{0});
    run_ = {.step = 17,
            .position = {2, 300},
            .tokens = 123456789012,
            .seed = 0xFEDCBA9876543210,
            .settings = {{"lr", 0.1}, {"optimizer", "adamw"}, {"steps", 100}, {"shuffle", true}}};
  }
  void write() {
    StateWriter writer;
    writer.add("bytes", std::as_bytes(std::span(bytes_)));
    writer.add("floats", std::span<const float>(floats_));
    writer.add("none", std::span<const std::byte>());
    writer.add_text("kind", "lion");
    writer.add_text("steps", "12");
    writer.write(*context_, path_, run_);
  }
  void put(std::string_view content) { std::ofstream(path_, std::ios::binary) << content; }
  std::string error_of_reading() {
    try {
      StateReader reader(*context_, path_);
      return "no error";
    } catch (const Error& error) {
      return error.what();
    }
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_.path() / "run.safetensors";
  OwnedExecContext context_{RunContext{.threads = 2}};
  std::vector<std::uint8_t> bytes_ = std::vector<std::uint8_t>(101);
  std::vector<float> floats_ = {1, -0.0f, 1e-45f, NAN, INFINITY};
  RunState run_;
};

TEST_F(TrainingStateTest, ComesBackExactly) {
  write();
  const StateReader reader(*context_, path_);
  EXPECT_EQ(reader.run().step, 17);
  EXPECT_EQ(reader.run().position, (StreamPosition{2, 300}));
  EXPECT_EQ(reader.run().tokens, 123456789012);
  EXPECT_EQ(reader.run().seed, 0xFEDCBA9876543210);
  EXPECT_EQ(reader.run().settings, run_.settings);
  EXPECT_TRUE(std::ranges::equal(reader.bytes("bytes"), std::as_bytes(std::span(bytes_))));
  std::vector<float> floats(floats_.size());
  reader.read("floats", std::span(floats));
  EXPECT_TRUE(std::ranges::equal(std::as_bytes(std::span(floats)), std::as_bytes(std::span(floats_))));
  EXPECT_EQ(reader.bytes("none").size(), 0u);
  EXPECT_EQ(reader.text("kind"), "lion");
  EXPECT_EQ(reader.count("steps"), 12);
  EXPECT_THAT(reader.names(), testing::UnorderedElementsAre("bytes", "floats", "none"));
  EXPECT_TRUE(reader.contains("none"));
  EXPECT_FALSE(reader.contains("other"));
}

TEST_F(TrainingStateTest, WhatIsNotThereIsNamed) {
  write();
  const StateReader reader(*context_, path_);
  const auto error_of = [](auto&& body) {
    try {
      body();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(error_of([&] { reader.bytes("m"); }), HasSubstr("run.safetensors': there is no part 'm'"));
  std::vector<float> floats(4);
  EXPECT_THAT(error_of([&] { reader.read("floats", std::span(floats)); }), HasSubstr("has 20 bytes where 16 are"));
  EXPECT_THAT(error_of([&] { reader.text("other"); }), HasSubstr("other"));
  EXPECT_THAT(error_of([&] { reader.count("kind"); }), HasSubstr("'kind' is 'lion', no count"));
}

TEST_F(TrainingStateTest, AnotherRunIsRefusedByTheNameOfTheSetting) {
  write();
  const StateReader reader(*context_, path_);
  const auto error_of = [&](const json::Object& settings) {
    try {
      reader.check_settings(settings);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(error_of(run_.settings), "no error");
  json::Object others = run_.settings;
  others[0].second = 0.2;
  EXPECT_THAT(error_of(others), HasSubstr("lr is 0.1 there and 0.2 here"));
  others = run_.settings;
  others.emplace_back("context", 256);
  EXPECT_THAT(error_of(others), HasSubstr("context is unset there and 256 here"));
  others = run_.settings;
  others.pop_back();
  EXPECT_THAT(error_of(others), HasSubstr("shuffle is true there and unset here"));
}

TEST_F(TrainingStateTest, EveryTruncationIsRefused) {
  write();
  const std::string whole = read_file(path_);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    put(std::string_view(whole).substr(0, n));
    EXPECT_THAT(error_of_reading(), HasSubstr("run.safetensors")) << n;
  }
  put(whole + '\0');
  EXPECT_THAT(error_of_reading(), HasSubstr("1 bytes follow"));
}

// Whatever byte changes: the file is refused, or it says the same (what is no number but a name of a type, or a blank).
TEST_F(TrainingStateTest, EveryChangedByteIsSeen) {
  write();
  const std::string whole = read_file(path_);
  int refused = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    put(damaged);
    try {
      const StateReader reader(*context_, path_);
      EXPECT_EQ(reader.run().step, 17);
      EXPECT_EQ(reader.run().settings, run_.settings);
      EXPECT_TRUE(std::ranges::equal(reader.bytes("bytes"), std::as_bytes(std::span(bytes_)))) << i;
      EXPECT_TRUE(std::ranges::equal(reader.bytes("floats"), std::as_bytes(std::span(floats_)))) << i;
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, static_cast<int>(whole.size()) - 10);
}

TEST_F(TrainingStateTest, DamageIsNamedWithItsPartAndOffset) {
  write();
  std::string damaged = read_file(path_);
  const std::size_t offset = damaged.size() - 101;  // the bytes lie behind the floats, which are wider
  damaged.back() = static_cast<char>(damaged.back() ^ 1);
  put(damaged);
  EXPECT_THAT(error_of_reading(),
              HasSubstr("run.safetensors': part 'bytes' at offset " + std::to_string(offset) + " is damaged"));
}

TEST_F(TrainingStateTest, OtherFilesAreRefused) {
  EXPECT_THAT(error_of_reading(), HasSubstr("run.safetensors"));
  container::Metadata metadata;
  metadata.set("format", std::string("pt"));
  container::create_safetensors(path_, metadata, {})->commit();
  EXPECT_THAT(error_of_reading(), HasSubstr("is not the state of a training run"));
  metadata.set("format", std::string("nibble-training-state"));
  metadata.set("version", std::string("2"));
  container::create_safetensors(path_, metadata, {})->commit();
  EXPECT_THAT(error_of_reading(), HasSubstr("version '2'"));
}

// A write that does not come to its end leaves what was there.
TEST_F(TrainingStateTest, AnUnfinishedWriteLeavesTheOldState) {
  write();
  CancelToken cancel;
  cancel.cancel();
  OwnedExecContext cancelled(RunContext{.threads = 1, .cancel = &cancel});
  StateWriter writer;
  writer.add("floats", std::span<const float>(floats_));
  EXPECT_THROW(writer.write(*cancelled, path_, {.step = 18}), Error);
  EXPECT_EQ(StateReader(*context_, path_).run().step, 17);
  run_.step = 19;
  write();
  EXPECT_EQ(StateReader(*context_, path_).run().step, 19);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1);
}

TEST_F(TrainingStateTest, TwoPartsOfOneNameAreRefused) {
  StateWriter writer;
  writer.add("floats", std::span<const float>(floats_));
  writer.add("floats", std::span<const float>(floats_));
  EXPECT_THROW(writer.write(*context_, path_, {}), Error);
}

}  // namespace
}  // namespace nibble::train
