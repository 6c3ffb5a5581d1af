#include "model/block_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/rng.h"
#include "encoding/encoding.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble::model {
namespace {

// The residual stream after each block of a whole pass.
class Streams final : public ForwardObserver {
 public:
  void block_output(ExecContext& /*context*/, int layer, const float* x, std::int64_t n, std::int64_t hidden) override {
    of[layer].insert(of[layer].end(), x, x + n * hidden);
  }
  std::map<int, std::vector<float>> of;
};

class Blocks : public ::testing::TestWithParam<std::string> {
 protected:
  Blocks() : pool_(2), context_{pool_, cancel_, progress_} {
    testing::write_tiny_model(folder_.path(), testing::tiny_config(GetParam()));
    source_ = ModelSource::open(folder_.path());
  }
  std::vector<token::TokenId> tokens(std::size_t n) const {
    std::vector<token::TokenId> out(n);
    for (std::size_t i = 0; i < n; ++i)
      out[i] = static_cast<token::TokenId>(random_bits(7, 1, i) % static_cast<std::uint64_t>(source_->spec().vocab));
    return out;
  }
  Streams whole_pass(const std::shared_ptr<const ModelSource>& source, const std::vector<token::TokenId>& all,
                     std::int64_t length, std::vector<float>* all_logits = nullptr) {
    const auto model = Model::load(context_, source, {MathPath::kExact, best_isa()});
    Streams streams;
    for (std::size_t at = 0; at < all.size(); at += static_cast<std::size_t>(length)) {
      KvCache cache(model->spec(), KvType::kF32, 1, length);
      const Segment segment[] = {{0, std::span(all).subspan(at, static_cast<std::size_t>(length)), 0}};
      model->forward(
          context_, cache, segment,
          [&](std::size_t, std::int64_t, std::int64_t n, const float* logits) {
            if (all_logits != nullptr) all_logits->insert(all_logits->end(), logits, logits + n * model->spec().vocab);
          },
          &streams);
    }
    return streams;
  }

  testing::TemporaryFolder folder_;
  ThreadPool pool_;
  CancelToken cancel_;
  NullProgress progress_;
  ExecContext context_;
  std::shared_ptr<const ModelSource> source_;
};

void expect_near(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  float largest = 0;
  for (const float value : b) largest = std::max(largest, std::fabs(value));
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-5f * largest) << i;
}

// 7 sequences of 100 tokens take two parts, sequences of 600 two each.
TEST_P(Blocks, OneByOneAreTheModel) {
  for (const auto& [count, length] : {std::pair{7, 100}, {2, 600}}) {
    if (source_->spec().positions == Positions::kLearned && length > source_->spec().context) continue;
    const auto all = tokens(static_cast<std::size_t>(count * length));
    std::vector<float> expected_logits;
    const Streams expected = whole_pass(source_, all, length, &expected_logits);
    const BlockModel model(context_, source_, best_isa());
    std::vector<float> x(all.size() * static_cast<std::size_t>(model.spec().hidden));
    model.embed(context_, all, length, x.data());
    expect_near(x, expected.of.at(-1));
    for (int layer = 0; layer < model.spec().n_layers(); ++layer) {
      if (model.spec().blocks[static_cast<std::size_t>(layer)].parallel) {
        model.run(context_, layer, BlockModel::Half::kBoth, count, length, x.data());
      } else {
        model.run(context_, layer, BlockModel::Half::kAttention, count, length, x.data());
        model.run(context_, layer, BlockModel::Half::kFeedForward, count, length, x.data());
      }
      expect_near(x, expected.of.at(layer));
    }
    std::vector<float> logits(expected_logits.size());
    model.logits(context_, count, length, x.data(), [&](std::int64_t first, std::int64_t n, const float* rows) {
      std::copy_n(rows, n * model.spec().vocab, logits.begin() + first * model.spec().vocab);
    });
    expect_near(logits, expected_logits);
  }
}

TEST_P(Blocks, RunWithExchangedWeights) {
  const auto exchangeable = source_->exchangeable();
  const auto all = tokens(48);
  std::size_t slot = 0;
  while (exchangeable->spec().weights[slot].layer != 1 || !is_matrix(exchangeable->spec().weights[slot].role)) ++slot;
  const WeightSlot& weight = exchangeable->spec().weights[slot];
  BlockModel model(context_, exchangeable, best_isa());
  const auto run = [&] {
    std::vector<float> x(all.size() * static_cast<std::size_t>(model.spec().hidden));
    model.embed(context_, all, 24, x.data());
    for (int layer = 0; layer < 2; ++layer) model.run(context_, layer, BlockModel::Half::kBoth, 2, 24, x.data());
    return x;
  };
  const std::vector<float> before = run();
  Tensor tensor = encoding::allocate(encoding::get("q8_0"), weight.shape);
  std::vector<float> values(static_cast<std::size_t>(weight.shape.elements()));
  exchangeable->read_rows(slot, 0, weight.shape.rows(), values.data());
  for (float& value : values) value *= -1;
  encoding::get("q8_0").encode(values.data(), tensor.mutable_part(PartRole::kCodes).data(), weight.shape.elements());
  exchangeable->exchange(slot, std::move(tensor));
  model.reload(context_, 1);
  const std::vector<float> exchanged = run();
  EXPECT_NE(exchanged, before);
  expect_near(exchanged, whole_pass(exchangeable, all, 24).of.at(1));
  exchangeable->restore(slot);
  model.reload(context_, 1);
  EXPECT_EQ(run(), before);
}

INSTANTIATE_TEST_SUITE_P(Models, Blocks,
                         ::testing::Values("llama", "phi", "qwen2_moe", "gpt2", "gemma2", "deepseek_v3", "opt"),
                         [](const auto& name) { return name.param; });

}  // namespace
}  // namespace nibble::model
