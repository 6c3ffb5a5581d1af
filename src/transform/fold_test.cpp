// Every link of every architecture: the function of the model stays what it was.
#include "transform/fold.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "encoding/encoding.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble::transform {
namespace {

class Folds : public ::testing::TestWithParam<std::string> {
 protected:
  Folds() : pool_(2), context_{pool_, cancel_, progress_} {
    for (const testing::TinyVariant& variant : testing::tiny_variants()) {
      if (variant.name == GetParam()) testing::write_tiny_model(folder_.path(), variant.config);
    }
    source_ = model::ModelSource::open(folder_.path())->exchangeable();
    chunks_.context = 24;
    chunks_.n_chunks = 2;
    for (std::size_t i = 0; i < 48; ++i)
      chunks_.tokens.push_back(
          static_cast<token::TokenId>(random_bits(5, 0, i) % static_cast<std::uint64_t>(source_->spec().vocab)));
  }
  std::vector<float> run(const calib::BlockWalk& walk, int layer) {
    std::vector<float> x(walk.states(), walk.states() + 48 * walk.spec().hidden);
    walk.model().run(context_, layer, model::BlockModel::Half::kBoth, 2, 24, x.data());
    return x;
  }

  // Variance of the logarithms of the largest magnitudes of the first linears' input channels.
  double spread(calib::BlockWalk& walk, int layer) {
    const calib::Stage stage = walk.stages(context_, layer)[0];
    const calib::InputMoments moments =
        walk.collect(context_, stage, {.gram = false, .cross = false, .ranges = true}, calib::Share::kTrain);
    double sum = 0, squares = 0;
    const auto n = static_cast<double>(stage.cols);
    for (const float largest : moments.max_abs(0)) {
      const double value = std::log(std::max(1e-9, static_cast<double>(largest)));
      sum += value;
      squares += value * value;
    }
    return squares / n - sum / n * (sum / n);
  }

  testing::TemporaryFolder folder_;
  ThreadPool pool_;
  CancelToken cancel_;
  NullProgress progress_;
  ExecContext context_;
  std::shared_ptr<model::ModelSource> source_;
  calib::TokenChunks chunks_;
};

// Factors from what flows on a text; the outputs of each block in f32 stay.
TEST_P(Folds, OfSmoothquantLeaveTheFunctionAsItIs) {
  calib::BlockWalk walk(context_, source_, nullptr, chunks_, {best_isa(), 0});
  std::vector<SlotTarget> targets(source_->spec().weights.size());
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (source_->spec().weights[i].shape.rank() > 1)
      targets[i] = {&encoding::get("int8-channel"), &method::get("rtn"), nullptr, nullptr};
  }
  const method::Options options;
  const Chosen chosen = choose("smoothquant:alpha=0.5");
  double spread_before = 0, spread_after = 0;
  for (int layer = 0; layer < walk.spec().n_layers(); ++layer) {
    const std::vector<float> before = run(walk, layer);
    BlockScope scope{context_, walk, *source_, targets, options, layer, chosen.settings};
    spread_before += spread(walk, layer);
    chosen.transform->apply(scope);
    spread_after += spread(walk, layer);
    walk.reload(context_, layer);
    const std::vector<float> after = run(walk, layer);
    double error = 0, power = 0;
    for (std::size_t i = 0; i < before.size(); ++i) {
      error += std::pow(static_cast<double>(after[i]) - static_cast<double>(before[i]), 2);
      power += std::pow(static_cast<double>(before[i]), 2);
    }
    EXPECT_LT(std::sqrt(error / power), 1e-5) << "block " << layer;
    walk.pass(context_, layer, model::BlockModel::Half::kBoth);
  }
  const model::Role first = walk.stages(context_, 0)[0].roles[0];
  const bool linked = std::ranges::any_of(model::block_links(walk.spec(), 0), [&](const model::Link& link) {
    return std::ranges::find(link.consumers, first) != link.consumers.end();
  });
  EXPECT_TRUE(linked ? spread_after < spread_before : spread_after == spread_before);  // of the first inputs
}

TEST_P(Folds, LeaveTheFunctionAsItIs) {
  calib::BlockWalk walk(context_, source_, nullptr, chunks_, {best_isa(), 0});
  std::vector<SlotTarget> targets(source_->spec().weights.size());
  // Norms that end up in 16 bits must not change the function either.
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const bool norm = source_->spec().weights[i].shape.rank() == 1 && !source_->spec().weights[i].bias;
    if (norm) targets[i].kept_as = &encoding::get("bf16");
  }
  const method::Options options;
  int links = 0;
  for (int layer = 0; layer < walk.spec().n_layers(); ++layer) {
    const std::vector<float> before = run(walk, layer);
    float largest = 0;
    for (std::size_t i = 0; i < before.size(); ++i)
      largest = std::max(largest, std::fabs(before[i] - walk.states()[i]));
    BlockScope scope{context_, walk, *source_, targets, options, layer};
    for (const model::Link& link : model::block_links(walk.spec(), layer)) {
      SCOPED_TRACE(model::role_name(link.producer));
      std::vector<float> scale(static_cast<std::size_t>(link.rows()));
      for (std::size_t i = 0; i < scale.size(); ++i)
        scale[i] = std::exp(0.5f * random_normal(11, static_cast<std::uint64_t>(links), i));
      const std::vector<float> asked = scale;
      const auto consumer = slot_index(walk.spec(), link.consumers[0], layer);
      const std::vector<float> weight = read_weight(*source_, consumer);
      fold(scope, link, scale);
      EXPECT_NE(read_weight(*source_, consumer), weight);
      for (std::size_t i = 0; i < scale.size(); ++i) EXPECT_NEAR(scale[i] / asked[i], 1, 0.01) << i;
      walk.reload(context_, layer);
      const std::vector<float> after = run(walk, layer);
      for (std::size_t i = 0; i < before.size(); ++i) ASSERT_NEAR(after[i], before[i], 1e-4f * largest) << i;
      ++links;
    }
    walk.pass(context_, layer, model::BlockModel::Half::kBoth);
  }
  EXPECT_GE(links, walk.spec().n_layers());
}

// Where weights were folded and nothing else was done, what flows is that of the original in other units.
TEST_P(Folds, TheOriginalIsSeenInTheSameUnits) {
  calib::BlockWalk walk(context_, source_, source_->exchangeable(), chunks_, {best_isa(), 0});
  const std::vector<SlotTarget> targets(source_->spec().weights.size());
  const method::Options options;
  BlockScope scope{context_, walk, *source_, targets, options, 0};
  std::vector<model::Role> consumers;
  for (const model::Link& link : model::block_links(walk.spec(), 0)) {
    std::vector<float> scale(static_cast<std::size_t>(link.rows()));
    for (std::size_t i = 0; i < scale.size(); ++i) scale[i] = std::exp(0.5f * random_normal(12, consumers.size(), i));
    fold(scope, link, scale);
    consumers.push_back(link.consumers[0]);
  }
  walk.reload(context_, 0);
  for (const calib::Stage& stage : walk.stages(context_, 0)) {
    if (stage.n_matrices > 1 || std::ranges::find(consumers, stage.roles[0]) == consumers.end()) continue;
    SCOPED_TRACE(model::role_name(stage.roles[0]));
    const calib::InputMoments moments =
        walk.collect(context_, stage, {.gram = true, .cross = true, .ranges = false}, calib::Share::kTrain);
    const auto gram = moments.gram(0), cross = moments.cross(0);
    float largest = 0;
    for (const float value : gram) largest = std::max(largest, std::fabs(value));
    for (std::size_t i = 0; i < gram.size(); ++i) ASSERT_NEAR(cross[i], gram[i], 1e-4f * largest) << i;
  }
}

std::vector<std::string> names() {
  std::vector<std::string> out;
  for (const testing::TinyVariant& variant : testing::tiny_variants()) out.push_back(variant.name);
  return out;
}

INSTANTIATE_TEST_SUITE_P(Variants, Folds, ::testing::ValuesIn(names()), [](const auto& test) {
  std::string name = test.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
});

}  // namespace
}  // namespace nibble::transform
