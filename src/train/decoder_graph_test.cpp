// The graph that is trained against the engine: the same logits for a tiny model of every architecture and option.
#include "train/decoder_graph.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "model/model.h"
#include "testing/program.h"
#include "testing/tiny_model.h"
#include "train/model_parameters.h"

namespace nibble::train {
namespace {

class GraphTest : public ::testing::TestWithParam<testing::TinyVariant> {
 protected:
  void SetUp() override {
    testing::write_tiny_model(folder_.path(), GetParam().config);
    source_ = model::ModelSource::open(folder_.path());
    for (std::uint64_t i = 0; i < 80; ++i)
      tokens_.push_back(
          static_cast<token::TokenId>(random_bits(3, 1, i) % static_cast<std::uint64_t>(source_->spec().vocab)));
  }

  // Two sequences, each from an empty cache.
  std::vector<float> engine_logits(std::int64_t length) {
    const auto model = model::Model::load(context_, source_, {model::MathPath::kExact, best_isa()});
    std::vector<float> out;
    for (std::int64_t begin = 0; begin < std::ssize(tokens_); begin += length) {
      model::KvCache cache(model->spec(), model::KvType::kF32, 1, length);
      const auto all = std::span(tokens_).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(length));
      const model::Segment segment = {0, all, 0};
      model->forward(context_, cache, {&segment, 1}, [&](std::size_t, std::int64_t, std::int64_t n, const float* at) {
        out.insert(out.end(), at, at + n * source_->spec().vocab);
      });
    }
    return out;
  }

  template <typename Real>
  std::vector<float> graph_logits(std::int64_t length) {
    const Sequences sequences = {std::ssize(tokens_) / length, length};
    DecoderGraph<Real> graph(source_->spec());
    ModelParameters<Real> weights(*source_);
    Tape<Real> tape(context_, best_isa());
    Var x = graph.embed(tape, weights, tokens_, sequences);
    for (int layer = 0; layer < source_->spec().n_layers(); ++layer) {
      x = checkpoint<Real>(
          tape, x, [&, layer](Tape<Real>& part, Var in) { return graph.block(part, weights, layer, in, sequences); });
    }
    const Var logits = graph.logits(tape, weights, graph.head_input(tape, weights, x));
    return {tape.value(logits), tape.value(logits) + tape.size(logits)};
  }

  static double apart(const std::vector<float>& a, const std::vector<float>& b) {
    double square = 0, difference = 0;
    for (std::size_t i = 0; i < b.size(); ++i) {
      square += static_cast<double>(b[i]) * b[i];
      difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    }
    return std::sqrt(difference / square);
  }

  testing::TemporaryFolder folder_;
  ThreadPool pool_{2};
  CancelToken cancel_;
  NullProgress progress_;
  ExecContext context_{pool_, cancel_, progress_};
  std::shared_ptr<const model::ModelSource> source_;
  std::vector<token::TokenId> tokens_;
};

TEST_P(GraphTest, GivesTheEnginesLogits) {
  const std::vector<float> expected = engine_logits(40), got = graph_logits<float>(40);
  ASSERT_EQ(got.size(), expected.size());
  EXPECT_LT(apart(got, expected), 1e-5);
  EXPECT_LT(apart(graph_logits<double>(40), expected), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(All, GraphTest, ::testing::ValuesIn(testing::tiny_variants()),
                         [](const auto& variant) { return variant.param.name; });

}  // namespace
}  // namespace nibble::train
