// Training runs: the losses of torch, and the same numbers however often a run is interrupted.
#include "train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <limits>
#include <sstream>

#include "base/rng.h"
#include "testing/program.h"
#include "testing/tiny_model.h"
#include "train/loss_curve.h"
#include "train/training_state.h"
#include "train/whole_model.h"

namespace nibble::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// As dev/golden/training.py makes them.
std::vector<Example> skewed_examples(std::int64_t n, std::uint64_t length, std::int64_t vocab) {
  std::vector<Example> out;
  for (std::int64_t s = 0; s < n; ++s) {
    Example example;
    for (std::uint64_t i = 0; i < length; ++i) {
      const float u = random_uniform(11, static_cast<std::uint64_t>(s), i);
      example.tokens.push_back(static_cast<token::TokenId>(u * u * static_cast<float>(vocab)));
      example.learned.push_back(i > 0 ? 1 : 0);
    }
    out.push_back(std::move(example));
  }
  return out;
}

// All weights of a model on disk, trained whole, with a place to interfere.
class TestModel : public WholeModel {
 public:
  TestModel(ExecContext& context, const std::shared_ptr<const model::ModelSource>& source)
      : TestModel(context, source, std::make_unique<ModelParameters<float>>(*source)) {}

  // before_pass(pass) and after_pass(pass, sums) of every batch, after_step(steps taken by this object).
  std::function<void(std::uint64_t)> before_pass;
  std::function<void(std::uint64_t, LossSums&)> after_pass;
  std::function<void(int)> on_step;
  std::function<void()> on_look;

  LossSums add_gradients(const TokenBatch& batch, double divisor, std::uint64_t pass) override {
    if (before_pass) before_pass(pass);
    LossSums sums = WholeModel::add_gradients(batch, divisor, pass);
    if (after_pass) after_pass(pass, sums);
    return sums;
  }
  LossSums loss(const TokenBatch& batch) override {
    if (on_look) on_look();
    return WholeModel::loss(batch);
  }
  void after_step() override {
    ++steps_;
    if (on_step) on_step(steps_);
  }
  std::vector<float> values() {
    std::vector<float> out;
    for (const Parameter* parameter : parameters())
      out.insert(out.end(), parameter->values(), parameter->values() + parameter->size());
    return out;
  }

 private:
  TestModel(ExecContext& context, const std::shared_ptr<const model::ModelSource>& source,
            std::unique_ptr<ModelParameters<float>> weights)
      : WholeModel(context, source->spec(), *weights, weights->trained(), nullptr, {.isa = best_isa()}),
        source_(source),
        weights_(std::move(weights)) {}

  std::shared_ptr<const model::ModelSource> source_;
  std::unique_ptr<ModelParameters<float>> weights_;
  int steps_ = 0;
};

class TorchTest : public ::testing::TestWithParam<const char*> {};

TEST_P(TorchTest, LossesAreThoseOfTorch) {
  std::vector<double> expected;
  std::ifstream file(NIBBLE_SOURCE_DIR "/src/train/testdata/training.txt");
  for (std::string line, word, name; std::getline(file, line);) {
    std::istringstream words(line);
    words >> word >> name;
    for (double loss = 0; name == GetParam() && words >> loss;) expected.push_back(loss);
  }
  ASSERT_EQ(expected.size(), 50U);

  OwnedExecContext context(RunContext{.threads = 2});
  const fs::path from = fs::path(NIBBLE_SOURCE_DIR "/src/model/testdata") / GetParam();
  const std::shared_ptr<const model::ModelSource> source = model::ModelSource::open(from);
  TestModel model(*context, source);
  testing::TemporaryFolder folder;
  TrainerOptions options;
  options.steps = 50;
  options.optimizer.weight_decay = 0.01;
  options.schedule = "constant";
  options.clip = 0;
  options.folder = folder.path();
  const auto examples = skewed_examples(200, 64, source->spec().vocab);
  train(*context, model, examples, {.n_sequences = 4, .shuffle = false}, {}, options);
  const std::vector<LossRow> rows = read_loss_curve(curve_path(folder.path()));
  ASSERT_EQ(rows.size(), expected.size());
  for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_NEAR(rows[i].loss, expected[i], 1e-4) << "step " << i + 1;
}

INSTANTIATE_TEST_SUITE_P(Models, TorchTest, ::testing::Values("llama_mha", "qwen2", "gemma2", "gpt2"),
                         [](const auto& name) { return std::string(name.param); });

class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() {
    testing::write_tiny_model(folder_.path() / "model", testing::tiny_config("llama"));
    source_ = model::ModelSource::open(folder_.path() / "model");
    examples_ = skewed_examples(7, 24, source_->spec().vocab);
    options_.steps = 6;
    options_.accumulate = 2;
    options_.optimizer.weight_decay = 0.1;
    options_.warmup_steps = 2;
    options_.seed = 5;
    options_.folder = folder_.path() / "run";
  }
  // A run of a model of its own; it may be stopped by who interferes.
  TrainedRun run(const std::function<void(TestModel&, CancelToken&)>& interfere = {}) {
    CancelToken cancel;
    OwnedExecContext context(RunContext{.threads = 2, .cancel = &cancel});
    TestModel model(*context, source_);
    if (interfere) interfere(model, cancel);
    const TrainedRun result =
        train(*context, model, examples_, {.n_sequences = 2, .seed = options_.seed}, held_out(), options_);
    values_ = model.values();
    return result;
  }
  std::string error_of_run(const std::function<void(TestModel&, CancelToken&)>& interfere = {}) {
    try {
      run(interfere);
    } catch (const std::exception& error) {
      return error.what();
    }
    return "no error";
  }
  std::span<const Example> held_out() const { return std::span(examples_).first(2); }
  StateReader state() {
    OwnedExecContext context(RunContext{.threads = 1});
    return StateReader(*context, state_path(options_.folder));
  }
  std::vector<double> losses() const {  // of all steps
    std::vector<double> out;
    for (const LossRow& row : read_loss_curve(curve_path(options_.folder))) out.push_back(row.loss);
    return out;
  }

  testing::TemporaryFolder folder_;
  std::shared_ptr<const model::ModelSource> source_;
  std::vector<Example> examples_;
  TrainerOptions options_;
  std::vector<float> values_;
};

class Killed : public std::runtime_error {
 public:
  Killed() : std::runtime_error("killed") {}
};

TEST_F(TrainerTest, InterruptedIsTheSame) {
  options_.evaluate_every = 2;
  const std::vector<std::pair<std::string, std::function<void(TestModel&, CancelToken&)>>> ways = {
      {"between steps",
       [](TestModel& model, CancelToken& cancel) {
         model.on_step = [&](int steps) { steps == 3 ? cancel.cancel() : void(); };
       }},
      {"within a step",
       [](TestModel& model, CancelToken& cancel) {
         model.before_pass = [&](std::uint64_t pass) { pass == 7 ? cancel.cancel() : void(); };
       }},
      {"while the held-out examples are looked at",
       [](TestModel& model, CancelToken& cancel) {
         model.on_step = [&](int steps) { steps == 4 ? cancel.cancel() : void(); };
       }},
      {"killed between two states", [](TestModel& model, CancelToken&) {
         model.before_pass = [&](std::uint64_t pass) { pass == 11 ? throw Killed() : void(); };
       }}};
  for (const char* kind : {"adamw", "adamw8bit"}) {
    options_.optimizer.kind = kind;
    options_.resume = false;
    options_.save_every = 2;
    run();
    const std::vector<float> expected = values_;
    const auto losses_of_steps = losses();
    ASSERT_EQ(losses_of_steps.size(), 6U);
    for (const auto& [name, way] : ways) {
      SCOPED_TRACE(std::string(kind) + " " + name);
      options_.resume = false;
      EXPECT_THAT(error_of_run(way), ::testing::AnyOf(HasSubstr("stopped"), HasSubstr("killed")));
      EXPECT_LT(state().run().step, 6);
      EXPECT_GE(state().run().step, 3);
      options_.resume = true;
      const TrainedRun rest = run();
      EXPECT_TRUE(rest.resumed);
      EXPECT_EQ(rest.steps, 6);
      EXPECT_EQ(values_, expected);
      EXPECT_EQ(losses(), losses_of_steps);
    }
  }
}

TEST_F(TrainerTest, StoppedBeforeTheFirstStep) {
  options_.evaluate_every = 1;
  EXPECT_THAT(error_of_run([](TestModel&, CancelToken& cancel) { cancel.cancel(); }), HasSubstr("stopped"));
  EXPECT_EQ(state().run().step, 0);
  options_.resume = true;
  EXPECT_EQ(run().steps, 6);
}

TEST_F(TrainerTest, FinishedIsNotTrainedOn) {
  run();
  const std::vector<float> expected = values_;
  options_.resume = true;
  EXPECT_EQ(run().steps, 6);
  EXPECT_EQ(values_, expected);
}

TEST_F(TrainerTest, OtherSettingsAreRefusedByName) {
  options_.steps = 2;
  options_.settings = {{"input", "this"}};
  run();
  const TrainerOptions same = options_;
  const std::vector<std::pair<std::string, std::function<void()>>> others = {
      {"lr", [this] { options_.optimizer.lr = 1; }},
      {"optimizer", [this] { options_.optimizer.kind = "lion"; }},
      {"beta2", [this] { options_.optimizer.beta2 = 0.9; }},
      {"weight_decay", [this] { options_.optimizer.weight_decay = 0; }},
      {"schedule", [this] { options_.schedule = "linear"; }},
      {"steps", [this] { options_.steps = 9; }},
      {"accumulate", [this] { options_.accumulate = 1; }},
      {"clip", [this] { options_.clip = 7; }},
      {"warmup_steps", [this] { options_.warmup_steps = 1; }},
      {"final_fraction", [this] { options_.final_fraction = 0.5; }},
      {"seed", [this] { options_.seed = 6; }},
      {"input",
       [this] {
         options_.settings = {{"input", "that"}};
       }},
  };
  for (const auto& [name, change] : others) {
    options_ = same;
    options_.resume = true;
    change();
    EXPECT_THAT(error_of_run(), HasSubstr(name));
  }
  options_ = same;
  options_.resume = true;
  options_.folder = folder_.path() / "elsewhere";
  EXPECT_THAT(error_of_run(), HasSubstr("elsewhere"));
}

TEST_F(TrainerTest, WhatIsNoNumberStopsTheRun) {
  const std::string error = error_of_run([](TestModel& model, CancelToken&) {
    model.after_pass = [](std::uint64_t pass, LossSums& sums) {
      if (pass == 9) sums.loss = std::numeric_limits<double>::quiet_NaN();
    };
  });
  EXPECT_THAT(error, HasSubstr("step 5: the loss is nan"));
  EXPECT_THAT(error, HasSubstr("state.safetensors"));
  EXPECT_EQ(state().run().step, 4);
  options_.resume = true;
  run();
  const std::vector<float> resumed = values_;
  options_.resume = false;
  run();
  EXPECT_EQ(values_, resumed);
}

TEST_F(TrainerTest, AMuchTooLargeLearningRateStopsTheRun) {
  options_.optimizer.lr = 1e30;
  options_.warmup_steps = 0;
  EXPECT_THAT(error_of_run(), ::testing::AllOf(HasSubstr("step 2: the loss is"), HasSubstr("1e+30")));
  EXPECT_EQ(state().run().step, 1);
}

TEST_F(TrainerTest, AccumulatedBatchesAreOneLargeBatch) {
  examples_ = skewed_examples(12, 24, source_->spec().vocab);
  options_.steps = 3;
  options_.clip = 0;
  run();
  const auto of_two = losses();
  options_.accumulate = 1;
  CancelToken cancel;
  OwnedExecContext context(RunContext{.threads = 2});
  TestModel model(*context, source_);
  train(*context, model, examples_, {.n_sequences = 4, .seed = options_.seed}, held_out(), options_);
  const auto of_large = losses();
  ASSERT_EQ(of_large.size(), of_two.size());
  for (std::size_t i = 0; i < of_two.size(); ++i) EXPECT_NEAR(of_large[i], of_two[i], 1e-4);
}

TEST_F(TrainerTest, HeldOutLossIsTheMeanOverPredictions) {
  options_.evaluate_every = 3;
  const TrainedRun result = run();
  OwnedExecContext context(RunContext{.threads = 2});
  TestModel model(*context, source_);
  EXPECT_NEAR(result.held_out_before, mean_loss(*context, model, held_out(), 1), 1e-5);
  EXPECT_LT(result.held_out_after, result.held_out_before);
  const std::vector<LossRow> rows = read_loss_curve(curve_path(options_.folder));
  for (const LossRow& row : rows) EXPECT_EQ(row.held_out_loss.has_value(), row.step % 3 == 0);
  EXPECT_EQ(rows[5].held_out_loss.value_or(0), result.held_out_after);
}

}  // namespace
}  // namespace nibble::train
