// Optimizers against torch and bitsandbytes (dev/golden/optimizers.py), and against themselves: threads, states.
#include "train/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <map>
#include <sstream>

#include "base/temporary_folder.h"
#include "encoding/codebook.h"
#include "train/parameters_test.h"
#include "train/pieces.h"
#include "train/quantile_tables.h"
#include "train/training_state.h"

namespace nibble::train {
namespace {

using testing::HasSubstr;

std::vector<float> floats_of(std::istringstream& words) {
  std::vector<float> values;
  for (std::string word; words >> word;) {
    values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(std::stoul(word, nullptr, 16))));
  }
  return values;
}

struct GoldenRun {
  std::string kind;
  std::int64_t size = 0;
  OptimizerSpec spec;
  std::map<std::int64_t, std::vector<float>> after;  // by step
};

struct Golden {
  std::map<std::string, std::vector<float>> maps;
  std::vector<GoldenRun> runs;
};

Golden read_golden() {
  std::ifstream file(NIBBLE_SOURCE_DIR "/src/train/testdata/optimizers.txt");
  Golden golden;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string what, name;
    words >> what;
    if (what == "map") {
      words >> name;
      golden.maps[name] = floats_of(words);
    } else if (what == "run") {
      GoldenRun run;
      words >> run.kind >> run.size >> run.spec.lr >> run.spec.beta1 >> run.spec.beta2 >> run.spec.eps >>
          run.spec.weight_decay;
      run.spec.kind = run.kind.substr(0, run.kind.find('-'));
      golden.runs.push_back(run);
    } else {
      std::int64_t step = 0;
      words >> step;
      golden.runs.back().after[step] = floats_of(words);
    }
  }
  return golden;
}

class OptimizerTest : public testing::Test {
 protected:
  OwnedExecContext context_{RunContext{.threads = 2}};
};

TEST_F(OptimizerTest, MapsOfBitsandbytes) {
  const Golden golden = read_golden();
  EXPECT_THAT(encoding::dynamic_map(), testing::ElementsAreArray(golden.maps.at("signed")));
  EXPECT_THAT(encoding::unsigned_dynamic_map(), testing::ElementsAreArray(golden.maps.at("unsigned")));
}

// Distances of the sampled parameters from the golden ones, against how far the farthest has come, ascending.
std::vector<double> errors_of(const GoldenRun& run, std::int64_t step, const std::vector<float>& values) {
  const std::vector<float>& expected = run.after.at(step);
  double moved = 0;
  std::vector<double> errors;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const std::size_t at = i * 61;
    errors.push_back(std::fabs(static_cast<double>(values[at]) - expected[i]));
    moved = std::max(moved, std::fabs(static_cast<double>(expected[i]) - centered(0, static_cast<std::int64_t>(at))));
  }
  for (double& error : errors) error /= moved;
  std::ranges::sort(errors);
  return errors;
}

TEST_F(OptimizerTest, TwentyStepsAsTorchAndBitsandbytes) {
  const Golden golden = read_golden();
  ASSERT_EQ(golden.runs.size(), 6u);
  for (const GoldenRun& run : golden.runs) {
    SCOPED_TRACE(run.kind);
    TestParameters parameters({run.size});
    const auto optimizer = make_optimizer(run.spec);
    int checked = 0;
    for (std::int64_t step = 1; step <= 20; ++step) {
      set_gradient(*parameters.pointers[0], step);
      optimizer->step(*context_, parameters.pointers, run.spec.lr);
      if (!run.after.contains(step)) continue;
      ++checked;
      const std::vector<double> errors = errors_of(run, step, parameters.values());
      if (run.kind == "adamw8bit-bnb") {  // which rounds to 16 bits before it rounds to 8: to other levels near 0
        EXPECT_LT(errors[errors.size() * 3 / 4], 1e-3) << step;
      } else {
        EXPECT_LT(errors.back(), 5e-6) << step;
      }
    }
    EXPECT_EQ(checked, 3);
    EXPECT_EQ(optimizer->steps(), 20);
  }
}

TEST_F(OptimizerTest, LearningRateScaleAndDecayAreOfTheParameter) {
  for (const std::string_view kind : optimizer_names()) {
    SCOPED_TRACE(kind);
    OptimizerSpec spec{.kind = std::string(kind), .weight_decay = 0.5};
    TestParameters parameters({100, 100, 100});
    parameters.pointers[1]->lr_scale = 0.5;
    parameters.pointers[2]->decays = false;
    for (Parameter* parameter : parameters.pointers) set_gradient(*parameter, 1);
    const auto optimizer = make_optimizer(spec);
    optimizer->step(*context_, parameters.pointers, 1e-2);
    // Of number 0 the gradient is 0, so it only decays; others move by lr on the first step (sgd: by their gradient).
    const float start = centered(0, 0);
    EXPECT_FLOAT_EQ(parameters.pointers[0]->values()[0], start * (1 - 1e-2f * 0.5f));
    EXPECT_FLOAT_EQ(parameters.pointers[1]->values()[0], start * (1 - 0.5e-2f * 0.5f));
    EXPECT_EQ(parameters.pointers[2]->values()[0], start);
    const float g = parameters.pointers[2]->gradients()[1];
    const float step = 1e-2f * (kind == "sgd" ? g : std::copysign(1.0f, g));
    EXPECT_NEAR(parameters.pointers[2]->values()[1], centered(0, 1) - step, 1e-5f);
  }
}

// Of one thread and of several, of every instruction set: the same bits.
TEST_F(OptimizerTest, BitsDependNeitherOnThreadsNorOnRegisters) {
  for (const std::string_view kind : optimizer_names()) {
    SCOPED_TRACE(kind);
    const OptimizerSpec spec{.kind = std::string(kind), .weight_decay = 0.1};
    std::vector<float> first;
    for (const int threads : {1, 2, 3}) {
      OwnedExecContext context(RunContext{.threads = threads});
      TestParameters parameters({33, 40001, 4096, 5000});
      const auto optimizer = make_optimizer(spec);
      for (std::int64_t step = 1; step <= 3; ++step) {
        for (Parameter* parameter : parameters.pointers) set_gradient(*parameter, step);
        optimizer->step(*context, parameters.pointers, 1e-3);
      }
      if (first.empty()) first = parameters.values();
      EXPECT_EQ(parameters.values(), first) << threads;
    }
  }
}

TEST_F(OptimizerTest, EveryInstructionSetGivesTheSameBits) {
  constexpr std::int64_t kN = 1000;  // no multiple of a block
  using Loop = UpdateLoop ParameterLoops::*;
  for (const Loop loop : {&ParameterLoops::adamw, &ParameterLoops::adamw8bit, &ParameterLoops::lion,
                          &ParameterLoops::signsgd, &ParameterLoops::sgd}) {
    std::vector<float> expected;
    std::vector<std::byte> expected_state;
    for (int isa = 0; isa <= static_cast<int>(machine_isa()); ++isa) {
      const ParameterLoops& loops = choose_loops(static_cast<Isa>(isa));
      TestParameters parameters({kN});
      std::vector<std::byte> state(4 * 4 * kN);
      StepScalars s{
          0.999f, 1e-3f, 0.9f, 0.99f, 0.1f, 0.01f, 0.1f, 1e-8f, 1e-2f, &signed_quantiles(), &unsigned_quantiles()};
      Parameter& p = *parameters.pointers[0];
      for (std::int64_t step = 1; step <= 5; ++step) {
        set_gradient(p, step);
        (loops.*loop)({p.values(), p.gradients(), {&state[0], &state[4 * kN], &state[8 * kN], &state[12 * kN]}, kN}, s);
      }
      if (isa == 0) expected = parameters.values(), expected_state = state;
      EXPECT_EQ(parameters.values(), expected) << isa;
      EXPECT_EQ(state, expected_state) << isa;
    }
  }
}

// Every number lands on the level that a search over all of them finds, and no bin holds two borders.
TEST(QuantileTables, RoundToTheNearestLevel) {
  for (const QuantileTable* table : {&signed_quantiles(), &unsigned_quantiles()}) {
    for (std::int32_t bin = 1; bin < QuantileTable::kBins; ++bin) {
      for (const std::uint32_t low : {0u, 0x1000u, 0x8000u, 0xFFFFu}) {
        const auto x = std::bit_cast<float>(static_cast<std::uint32_t>(bin + QuantileTable::kFirstBin) << 16 | low);
        if (x > 1) continue;
        const int least = table->lowest[bin];
        const int level = least + (x > table->border[least] ? 1 : 0);
        ASSERT_FALSE(x > table->border[level]) << x;
        const double found = std::fabs(static_cast<double>(table->level[table->zero + level]) - x);
        for (int other = table->zero; other < 256; ++other) {
          ASSERT_LE(found, std::fabs(static_cast<double>(table->level[other]) - x)) << x;
        }
      }
    }
  }
}

TEST_F(OptimizerTest, StatesGoToAFileAndComeBackExactly) {
  const TemporaryFolder folder;
  for (const std::string_view kind : optimizer_names()) {
    SCOPED_TRACE(kind);
    const OptimizerSpec spec{.kind = std::string(kind), .beta2 = 0.99, .weight_decay = 0.1};
    const auto path = folder.path() / "state.safetensors";
    TestParameters straight({100, 6000}), resumed({100, 6000});
    const auto optimizer = make_optimizer(spec);
    const auto take_step = [&](Optimizer& which, TestParameters& parameters, std::int64_t step) {
      for (Parameter* parameter : parameters.pointers) set_gradient(*parameter, step);
      which.step(*context_, parameters.pointers, 1e-2);
    };
    for (std::int64_t step = 1; step <= 3; ++step) {
      take_step(*optimizer, straight, step);
    }
    StateWriter writer;
    optimizer->save(writer);
    writer.write(*context_, path, {});
    for (std::size_t i = 0; i < 2; ++i) {
      std::copy_n(straight.pointers[i]->values(), straight.pointers[i]->size(), resumed.pointers[i]->values());
    }
    const auto other = make_optimizer(spec, 0);  // its states lie on disk
    const StateReader reader(*context_, path);
    other->load(reader, resumed.pointers);
    EXPECT_EQ(other->steps(), 3);
    EXPECT_EQ(other->state_on_disk(), other->state_bytes() > 0);
    EXPECT_FALSE(optimizer->state_on_disk());
    const std::int64_t sizes[] = {100, 6000};
    EXPECT_EQ(other->state_bytes(), optimizer_state_bytes(spec, sizes));
    for (std::int64_t step = 4; step <= 6; ++step) {
      take_step(*optimizer, straight, step);
      take_step(*other, resumed, step);
    }
    EXPECT_EQ(straight.values(), resumed.values());
  }
}

template <typename Body>
std::string error_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(OptimizerTest, OtherParametersAndKindsAreRefused) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "state.safetensors";
  TestParameters parameters({50, 60}), fewer({50}), others({50, 61});
  const auto optimizer = make_optimizer({});
  optimizer->step(*context_, parameters.pointers, 1e-3);
  EXPECT_THAT(error_of([&] { optimizer->step(*context_, fewer.pointers, 1e-3); }), HasSubstr("of 2 parameters"));
  EXPECT_THAT(error_of([&] { optimizer->step(*context_, others.pointers, 1e-3); }),
              HasSubstr("the state of 'p1' (60 numbers) and is given 'p1' (61)"));
  StateWriter writer;
  optimizer->save(writer);
  writer.write(*context_, path, {});
  const StateReader reader(*context_, path);
  EXPECT_THAT(error_of([&] { make_optimizer({.kind = "lion"})->load(reader, parameters.pointers); }),
              HasSubstr("holds the state of optimizer adamw, not of lion"));
  EXPECT_THAT(error_of([&] { make_optimizer({})->load(reader, others.pointers); }),
              HasSubstr("part 'optimizer.p1.m' at offset"));
  EXPECT_THAT(error_of([&] { make_optimizer({.kind = "adam"}); }), HasSubstr("no optimizer is called 'adam'"));
  EXPECT_THAT(error_of([&] { make_optimizer({.beta1 = 1}); }), HasSubstr("beta1 1"));
  EXPECT_THAT(error_of([&] { make_optimizer({.beta2 = NAN}); }), HasSubstr("beta2 nan"));
  EXPECT_THAT(error_of([&] { make_optimizer({.weight_decay = -1}); }), HasSubstr("a weight decay of -1"));
}

// A gradient that is no number spoils its block and nothing else, and never reaches beyond a table.
TEST_F(OptimizerTest, NotFiniteGradientsStayInTheirBlock) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    TestParameters parameters({5000});
    set_gradient(*parameters.pointers[0], 1);
    parameters.pointers[0]->gradients()[300] = bad;
    const auto optimizer = make_optimizer({.kind = "adamw8bit"});
    for (int step = 0; step < 2; ++step) optimizer->step(*context_, parameters.pointers, 1e-3);
    const std::vector<float> values = parameters.values();
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (i / 256 == 1) continue;
      ASSERT_TRUE(std::isfinite(values[i])) << i;
    }
  }
}

}  // namespace
}  // namespace nibble::train
