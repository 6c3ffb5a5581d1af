// Statistics in files: what is saved is what is read, merged parts are the whole, and what does not fit is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/rng.h"
#include "calib/collect_statistics.h"
#include "container/checkpoint.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble::calib {
namespace {

using ::testing::HasSubstr;
constexpr StatisticsKinds kAll{true, true, true};
constexpr std::int64_t kLength = 40;

class StatisticsTest : public ::testing::Test {
 protected:
  std::shared_ptr<const model::ModelSource> source(const std::string& type, std::uint64_t seed = 1) {
    const std::string path = folder_ / (type + std::to_string(seed));
    testing::TinyModelOptions options;
    options.seed = seed;
    testing::write_tiny_model(path, testing::tiny_config(type), options);
    return model::ModelSource::open(path);
  }
  TokenChunks chunks(std::int64_t begin, std::int64_t end) {
    TokenChunks chunks;
    chunks.context = kLength;
    chunks.n_chunks = end - begin;
    for (std::int64_t i = begin * kLength; i < end * kLength; ++i)
      chunks.tokens.push_back(static_cast<token::TokenId>(random_bits(5, 0, static_cast<std::uint64_t>(i)) % 250));
    return chunks;
  }
  std::string collect(const std::shared_ptr<const model::ModelSource>& source, const TokenChunks& chunks,
                      const std::string& name, const StatisticsKinds& kinds = kAll,
                      std::span<const StatisticsFile> merge = {}) {
    StatisticsPlan plan = plan_statistics(context_, source, kinds);
    plan.header.texts = {{"text", text_hash(name), chunks.n_chunks * chunks.context, chunks.context}};
    StatisticsWriter writer(folder_ / name, plan.header);
    coverage_ = collect_statistics(context_, source, plan, chunks, merge, writer);
    writer.commit();
    return folder_ / name;
  }
  // The file with `change` made to the bytes of one tensor.
  template <typename T>
  std::string with_value(const std::string& file, const std::string& tensor, std::size_t index, T value) {
    std::string bytes = read_file(file);
    const std::uint64_t at = container::open(file)->at(tensor).offset + index * sizeof(T);
    std::memcpy(bytes.data() + at, &value, sizeof(T));
    write_file_atomically(folder_ / "changed", bytes);
    return folder_ / "changed";
  }
  template <typename Body>
  std::string refusal(Body body) {
    try {
      body();
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }

  testing::TemporaryFolder folder_;
  ThreadPool pool_{2};
  CancelToken cancel_;
  NullProgress progress_;
  ExecContext context_{pool_, cancel_, progress_};
  std::vector<InputCoverage> coverage_;
};

class StatisticsFiles : public StatisticsTest, public ::testing::WithParamInterface<std::string> {};

void expect_equal(std::span<const float> a, std::span<const float> b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  double largest = 1e-30;
  for (const float value : b) largest = std::max(largest, static_cast<double>(std::fabs(value)));
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance * largest) << i;
}

void expect_equal(const InputMoments& a, const InputMoments& b, double tolerance) {
  ASSERT_EQ(a.n_matrices(), b.n_matrices());
  for (std::int64_t m = 0; m < a.n_matrices(); ++m) {
    ASSERT_EQ(a.count(m), b.count(m));
    expect_equal(a.gram(m), b.gram(m), tolerance);
    expect_equal(a.mean_square(m), b.mean_square(m), tolerance);
    expect_equal(a.mean_abs(m), b.mean_abs(m), tolerance);
    expect_equal(a.max_abs(m), b.max_abs(m), tolerance);
  }
}

// Every linear of every block is there, with the numbers that a walk from stage to stage gives.
TEST_P(StatisticsFiles, WhatIsSavedIsWhatFlowsIn) {
  const auto model = source(GetParam());
  const TokenChunks text = chunks(0, 9);
  const StatisticsFile file(collect(model, text, "statistics"));
  for (const model::WeightSlot& slot : model->spec().weights) {
    if (slot.layer < 0 || slot.bias || slot.shape.rank() < 2 || !model::is_matrix(slot.role)) continue;
    const auto input = file.find(slot.gguf_name);
    ASSERT_TRUE(input) << slot.gguf_name;
    EXPECT_EQ(file.header().inputs[*input].cols, slot.shape.cols());
    EXPECT_EQ(file.header().inputs[*input].matrices, slot.shape.rank() == 3 ? slot.shape[0] : 1);
  }
  EXPECT_EQ(file.header().inputs.back().layer, -1);
  EXPECT_NO_THROW(check_source(file, *model));

  BlockWalk walk(context_, model, nullptr, text, {best_isa(), 8});
  std::size_t input = 0;
  for (int layer = 0; layer < model->spec().n_layers(); ++layer) {
    const std::vector<Stage> stages = walk.stages(context_, layer);
    for (std::size_t i = 0; i < stages.size(); ++i, ++input) {
      SCOPED_TRACE(file.header().inputs[input].name);
      expect_equal(file.train(input), walk.collect(context_, stages[i], {true, false, true}, Share::kTrain), 2e-6);
      expect_equal(file.held_out(input), walk.collect(context_, stages[i], {true, false, false}, Share::kHeldOut),
                   2e-6);
      if (i + 1 == stages.size() || stages[i + 1].half != stages[i].half) walk.pass(context_, layer, stages[i].half);
    }
  }
  expect_equal(file.train(input), walk.collect(context_, walk.head_stage(), {true, false, true}, Share::kTrain), 2e-6);
  EXPECT_EQ(input + 1, file.header().inputs.size());
  EXPECT_EQ(coverage_[0].tokens[0], 8 * kLength);
  EXPECT_EQ(coverage_[0].held_out[0], kLength);
}

TEST_P(StatisticsFiles, MergedPartsAreTheWhole) {
  const auto model = source(GetParam());
  const StatisticsFile whole(collect(model, chunks(0, 16), "whole"));
  std::vector<StatisticsFile> parts;
  parts.emplace_back(collect(model, chunks(0, 8), "first"));
  // Beside a text, and from files alone.
  const StatisticsFile beside(collect(model, chunks(8, 16), "beside", kAll, parts));
  parts.emplace_back(collect(model, chunks(8, 16), "second"));
  StatisticsHeader header = parts[0].header();
  header.texts.push_back(parts[1].header().texts[0]);
  StatisticsWriter writer(folder_ / "both", header);
  merge_statistics(context_, parts, &writer);
  writer.commit();
  const StatisticsFile both(folder_ / "both");
  EXPECT_EQ(both.header().tokens(), 16 * kLength);
  for (std::size_t i = 0; i < whole.header().inputs.size(); ++i) {
    SCOPED_TRACE(whole.header().inputs[i].name);
    expect_equal(both.train(i), whole.train(i), 2e-6);
    expect_equal(both.held_out(i), whole.held_out(i), 2e-6);
    expect_equal(both.train(i), beside.train(i), 1e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, StatisticsFiles,
                         ::testing::Values("llama", "qwen2_moe", "deepseek_v3", "phi", "gpt2", "gpt_oss"));

using StatisticsOfLlama = StatisticsTest;

TEST_F(StatisticsOfLlama, ExactlyTheKindsAskedFor) {
  const auto model = source("llama");
  const StatisticsFile ranges(collect(model, chunks(0, 8), "ranges", {false, false, true}));
  EXPECT_TRUE(ranges.train(0).gram(0).empty());
  EXPECT_EQ(ranges.held_out(0).n_matrices(), 0);
  EXPECT_EQ(ranges.train(0).count(0), 8 * kLength);  // nothing is held out
  const StatisticsFile gram(collect(model, chunks(0, 8), "gram", {true, false, false}));
  EXPECT_EQ(container::open(folder_ / "gram")->find("model.layers.0.self_attn.q_proj.max_abs"), nullptr);
  const InputMoments both = gram.train(0);
  expect_equal(both.mean_square(0), ranges.train(0).mean_square(0), 1e-6);  // from the diagonal
  EXPECT_EQ(parse_statistics_kinds("ranges,gram"), (StatisticsKinds{true, false, true}));
  EXPECT_THAT(refusal([] { parse_statistics_kinds("gram,hessian"); }), HasSubstr("unknown statistics 'hessian'"));
  EXPECT_THAT(refusal([] { parse_statistics_kinds(""); }), HasSubstr("unknown statistics ''"));
  EXPECT_THAT(refusal([] { parse_statistics_kinds("held-out"); }), HasSubstr("gram,held-out"));
}

TEST_F(StatisticsOfLlama, OtherModelsAreRefused) {
  const auto model = source("llama");
  const StatisticsFile file(collect(model, chunks(0, 8), "statistics"));
  EXPECT_THAT(refusal([&] { check_source(file, *source("qwen3")); }), HasSubstr("architecture"));
  EXPECT_THAT(refusal([&] { check_source(file, *source("llama", 2)); }), HasSubstr("other weights"));
  json::Value wide = testing::tiny_config("llama");
  wide.set("intermediate_size", 256);
  testing::write_tiny_model(folder_ / "wide", wide);
  const auto other = model::ModelSource::open(folder_ / "wide");
  EXPECT_THAT(refusal([&] { check_source(file, *other); }), HasSubstr("ffn_down.weight' has"));
  const auto refused = [&](const std::string& path) {
    const StatisticsFile with(path);
    return refusal([&] { check_same_model(file.header(), "A", with.header(), "B"); });
  };
  EXPECT_THAT(refused(collect(other, chunks(0, 8), "wide-statistics")), HasSubstr("models of other shapes"));
  EXPECT_THAT(refused(collect(source("llama", 2), chunks(0, 8), "other")), HasSubstr("other weights"));
  EXPECT_THAT(refused(collect(model, chunks(0, 8), "ranges", {false, false, true})), HasSubstr("B ranges"));
  EXPECT_EQ(refused(file.path().string()), "accepted");
}

TEST_F(StatisticsOfLlama, DamagedFilesAreRefused) {
  const std::string path = collect(source("llama"), chunks(0, 8), "statistics");
  const std::string name = "model.layers.1.mlp.down_proj";
  const auto input = *StatisticsFile(path).find("blk.1.ffn_down.weight");
  const auto read = [&](const std::string& file) {
    return refusal([&] {
      const StatisticsFile statistics(file);
      statistics.train(input);
      statistics.held_out(input);
    });
  };
  EXPECT_EQ(read(path), "accepted");
  EXPECT_THAT(read(with_value(path, name + ".gram", 7, std::nanf(""))), HasSubstr(name + ".gram' holds nan"));
  EXPECT_THAT(read(with_value(path, name + ".gram", 0, -1.0f)), HasSubstr("mean square of column 0"));
  EXPECT_THAT(read(with_value(path, name + ".held_out_gram", 1, INFINITY)), HasSubstr("holds inf"));
  EXPECT_THAT(read(with_value(path, name + ".mean_abs", 1, -1.0f)), HasSubstr(name + ".mean_abs' holds -1"));
  EXPECT_THAT(read(with_value(path, name + ".tokens", 0, std::int64_t{-1})), HasSubstr("counts -1 tokens"));
  EXPECT_THAT(read(with_value(path, "probe", 0, std::nanf(""))), HasSubstr("probe' holds nan"));
  const std::string bytes = read_file(path);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{7}, std::size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    write_file_atomically(folder_ / "cut", bytes.substr(0, size));
    EXPECT_THAT(read(folder_ / "cut"), HasSubstr("cut")) << size;
  }
  EXPECT_THAT(read(folder_ / "llama1/model.safetensors"), HasSubstr("no statistics made by"));
  EXPECT_THAT(read(folder_ / "absent"), HasSubstr("absent"));
  std::string renamed = bytes;
  const std::size_t at = renamed.find("\"model.layers.1.mlp.down_proj.gram\"");
  ASSERT_NE(at, std::string::npos);
  renamed[at + 2] = 'X';
  write_file_atomically(folder_ / "renamed", renamed);
  EXPECT_THAT(read(folder_ / "renamed"), HasSubstr("there is no tensor '" + name + ".gram'"));
}

}  // namespace
}  // namespace nibble::calib
