#include "calib/block_walk.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "base/rng.h"
#include "encoding/encoding.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble::calib {
namespace {

using model::Role;

// All inputs of the linears, by layer and first role, of a whole pass.
class Inputs final : public model::ForwardObserver {
 public:
  void linear_input(ExecContext& /*context*/, int layer, std::span<const Role> roles, const float* x, std::int64_t n,
                    std::int64_t cols) override {
    auto& all = of[{layer, roles[0]}];
    all.insert(all.end(), x, x + n * cols);
  }
  std::map<std::pair<int, Role>, std::vector<float>> of;
};

class Walk : public ::testing::TestWithParam<std::string> {
 protected:
  Walk() : pool_(2), context_{pool_, cancel_, progress_} {
    testing::write_tiny_model(folder_.path(), testing::tiny_config(GetParam()));
    source_ = model::ModelSource::open(folder_.path());
    chunks_.context = 40;
    chunks_.n_chunks = 9;
    for (std::size_t i = 0; i < 360; ++i) {
      const std::uint64_t bits = random_bits(5, 0, i);
      chunks_.tokens.push_back(static_cast<token::TokenId>(bits % static_cast<std::uint64_t>(source_->spec().vocab)));
    }
  }
  Inputs inputs_of(std::int64_t begin, std::int64_t end) {
    const auto loaded = model::Model::load(context_, source_, {model::MathPath::kExact, best_isa()});
    Inputs inputs;
    for (std::int64_t i = begin; i < end; ++i) {
      model::KvCache cache(loaded->spec(), model::KvType::kF32, 1, chunks_.context);
      const model::Segment segment[] = {{0, chunks_.chunk(i), 0}};
      loaded->forward(
          context_, cache, segment, [](std::size_t, std::int64_t, std::int64_t, const float*) {}, &inputs);
    }
    return inputs;
  }

  testing::TemporaryFolder folder_;
  ThreadPool pool_;
  CancelToken cancel_;
  NullProgress progress_;
  ExecContext context_;
  std::shared_ptr<const model::ModelSource> source_;
  TokenChunks chunks_;
};

void expect_moments(InputMoments& moments, const std::vector<float>& x) {
  const std::int64_t cols = moments.cols();
  const auto n = static_cast<std::int64_t>(x.size()) / cols;
  ASSERT_EQ(moments.count(0), n);
  for (std::int64_t i = 0; i < cols; i += 11) {
    double square = 0, magnitude = 0;
    for (std::int64_t t = 0; t < n; ++t) {
      const auto value = static_cast<double>(x[static_cast<std::size_t>(t * cols + i)]);
      square += value * value / static_cast<double>(n);
      magnitude += std::fabs(value) / static_cast<double>(n);
    }
    EXPECT_NEAR(moments.mean_square(0)[static_cast<std::size_t>(i)], square, 1e-4 * square);
    EXPECT_NEAR(moments.mean_abs(0)[static_cast<std::size_t>(i)], magnitude, 1e-4 * magnitude);
    EXPECT_NEAR(moments.gram(0)[static_cast<std::size_t>(i * cols + i)], square, 1e-4 * square);
    for (std::int64_t j = 0; j < cols; j += 7) {
      double sum = 0;
      for (std::int64_t t = 0; t < n; ++t)
        sum += static_cast<double>(x[static_cast<std::size_t>(t * cols + i)]) *
               static_cast<double>(x[static_cast<std::size_t>(t * cols + j)]);
      const double scale =
          std::sqrt(square * static_cast<double>(moments.gram(0)[static_cast<std::size_t>(j * cols + j)]));
      EXPECT_NEAR(moments.gram(0)[static_cast<std::size_t>(i * cols + j)], sum / static_cast<double>(n), 1e-4 * scale);
      // Nothing was exchanged: the original sees the same.
      EXPECT_NEAR(moments.cross(0)[static_cast<std::size_t>(j * cols + i)], sum / static_cast<double>(n), 1e-4 * scale);
    }
  }
}

TEST_P(Walk, SeesWhatAWholePassSees) {
  Inputs train = inputs_of(0, 7), last = inputs_of(8, 9), held_out = inputs_of(7, 8);
  for (auto& [key, x] : train.of) x.insert(x.end(), last.of[key].begin(), last.of[key].end());
  BlockWalk walk(context_, source_, source_->exchangeable(), chunks_, {best_isa(), 8});
  EXPECT_EQ(walk.n_tokens(Share::kTrain), 320);
  EXPECT_EQ(walk.n_tokens(Share::kHeldOut), 40);
  const Wanted wanted = {true, true, true};
  std::set<std::pair<int, Role>> seen;
  const auto compare = [&](const Stage& stage) {
    if (stage.n_matrices > 1) return;
    seen.insert({stage.layer, stage.roles[0]});
    SCOPED_TRACE(format_text("{} {}", stage.layer, model::role_name(stage.roles[0])));
    const std::pair<int, Role> key = {stage.layer, stage.roles[0]};
    InputMoments moments = walk.collect(context_, stage, wanted, Share::kTrain);
    expect_moments(moments, train.of.at(key));
    InputMoments other = walk.collect(context_, stage, wanted, Share::kHeldOut);
    expect_moments(other, held_out.of.at(key));
    const std::vector<float> sample = walk.sample(context_, stage, 40);
    EXPECT_EQ(sample.size(), static_cast<std::size_t>(40 * stage.cols));
  };
  for (int layer = 0; layer < walk.spec().n_layers(); ++layer) {
    const std::vector<Stage> stages = walk.stages(context_, layer);
    for (const Stage& stage : stages) compare(stage);  // from before the block
    for (std::size_t i = 0; i < stages.size(); ++i) {
      compare(stages[i]);  // at its place
      if (i + 1 == stages.size() || stages[i + 1].half != stages[i].half) walk.pass(context_, layer, stages[i].half);
    }
  }
  compare(walk.head_stage());
  EXPECT_EQ(seen.size(), train.of.size());
}

TEST_P(Walk, HiddenStatesMayLieOnDisk) {
  BlockWalk in_memory(context_, source_, nullptr, chunks_, {best_isa(), 8});
  BlockWalk on_disk(context_, source_, nullptr, chunks_, {best_isa(), 8, 1000});
  for (BlockWalk* walk : {&in_memory, &on_disk}) walk->pass(context_, 0, model::BlockModel::Half::kBoth);
  const Stage stage = in_memory.stages(context_, 1)[0];
  const InputMoments a = in_memory.collect(context_, stage, {true, false, false}, Share::kTrain);
  const InputMoments b = on_disk.collect(context_, stage, {true, false, false}, Share::kTrain);
  EXPECT_TRUE(std::ranges::equal(a.gram(0), b.gram(0)));
}

INSTANTIATE_TEST_SUITE_P(Models, Walk, ::testing::Values("llama", "phi", "qwen2_moe"),
                         [](const auto& name) { return name.param; });

}  // namespace
}  // namespace nibble::calib
