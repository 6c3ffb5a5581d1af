// Gradients of whole models: against central differences in f64 for every architecture and option, and the same
// whatever the threads, the parts that logits are made in, and whether blocks are computed again.
#include "train/language_loss.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "testing/program.h"
#include "testing/tiny_model.h"
#include "train/model_parameters.h"

namespace nibble::train {
namespace {

constexpr std::int64_t kCount = 2, kLength = 28;
constexpr double kDivisor = 50;

// Two sequences of which not all tokens are learned.
class TinyBatch {
 public:
  explicit TinyBatch(std::int64_t vocab) {
    for (std::uint64_t i = 0; i < kCount * kLength; ++i) {
      tokens_.push_back(static_cast<token::TokenId>(random_bits(3, 1, i) % static_cast<std::uint64_t>(vocab)));
      learned_.push_back(i % 5 != 0 ? 1 : 0);
    }
  }
  TokenBatch view() const { return {{kCount, kLength}, tokens_, learned_}; }

 private:
  std::vector<token::TokenId> tokens_;
  std::vector<std::uint8_t> learned_;
};

template <typename Real>
std::vector<Real> gradients_of(ModelParameters<Real>& weights) {
  std::vector<Real> out;
  for (BasicParameter<Real>* parameter : weights.trained())
    out.insert(out.end(), parameter->gradients(), parameter->gradients() + parameter->size());
  return out;
}

// What is added to a gradient of 0 by a pool of so many threads.
template <typename Real>
std::vector<Real> gradients(const model::ModelSource& source, int threads, const LossOptions<Real>& options,
                            LossSums* sums = nullptr) {
  ThreadPool pool(threads);
  CancelToken cancel;
  NullProgress progress;
  ExecContext context{pool, cancel, progress};
  ModelParameters<Real> weights(source);
  DecoderGraph<Real> graph(source.spec());
  Tape<Real> tape(context, best_isa());
  const TinyBatch batch(source.spec().vocab);
  const LossSums got = add_gradients(tape, graph, weights, batch.view(), kDivisor, options);
  if (sums != nullptr) *sums = got;
  return gradients_of(weights);
}

class LanguageLossTest : public ::testing::TestWithParam<testing::TinyVariant> {
 protected:
  void SetUp() override {
    testing::write_tiny_model(folder_.path(), GetParam().config);
    source_ = model::ModelSource::open(folder_.path());
  }
  testing::TemporaryFolder folder_;
  std::shared_ptr<const model::ModelSource> source_;
};

// All numbers of the parameters moved by `step` along random numbers; returns gradient times direction.
double move(ModelParameters<double>& weights, double step) {
  double along = 0;
  std::uint64_t stream = 0;
  for (BasicParameter<double>* parameter : weights.trained()) {
    ++stream;
    for (std::int64_t k = 0; k < parameter->size(); ++k) {
      const auto direction = static_cast<double>(random_normal(9, stream, static_cast<std::uint64_t>(k)));
      parameter->values()[k] += step * direction;
      along += direction * parameter->gradients()[k];
    }
  }
  return along;
}

struct Slopes {
  double gradient, difference;
  double size;  // of the whole gradient, which a slope along random numbers has on average
};

void expect_equal(const Slopes& slopes) { EXPECT_NEAR(slopes.gradient, slopes.difference, 1e-6 * slopes.size); }

// The slope of the loss along a random direction in all parameters: the gradient's, and that of central differences.
Slopes slopes(const model::ModelSource& source, ModelParameters<double>& weights, const LossOptions<double>& options) {
  constexpr double kStep = 1e-6;
  ThreadPool pool(2);
  CancelToken cancel;
  NullProgress progress;
  ExecContext context{pool, cancel, progress};
  DecoderGraph<double> graph(source.spec());
  Tape<double> tape(context, best_isa());
  const TinyBatch batch(source.spec().vocab);
  const LossSums at = add_gradients(tape, graph, weights, batch.view(), kDivisor, options);
  EXPECT_NEAR(at.loss, loss_of(tape, graph, weights, batch.view(), options).loss, 1e-9 * at.loss);
  double square = 0;
  for (const double gradient : gradients_of(weights)) square += gradient * gradient;
  const double along = move(weights, kStep);
  const double above = loss_of(tape, graph, weights, batch.view(), options).loss;
  move(weights, -2 * kStep);
  const double below = loss_of(tape, graph, weights, batch.view(), options).loss;
  return {along, (above - below) / (2 * kStep) / kDivisor, std::sqrt(square)};
}

// In all parameters together; and each has one.
void expect_gradients(const model::ModelSource& source) {
  ModelParameters<double> weights(source);
  expect_equal(slopes(source, weights, {}));
  for (std::size_t slot = 0; slot < weights.size(); ++slot) {
    BasicParameter<double>& parameter = weights.at(slot);
    const model::Role role = source.spec().weights[slot].role;
    // Those are not trained, and this one decides which experts are used.
    if (model::is_rope_factors(role) || role == model::Role::kRouterBias) continue;
    ASSERT_GT(parameter.gradient.size(), 0U) << parameter.name;
    const double* end = parameter.gradients() + parameter.size();
    EXPECT_TRUE(std::any_of(static_cast<const double*>(parameter.gradients()), end, [](double g) { return g != 0; }))
        << parameter.name;
  }
}

TEST_P(LanguageLossTest, GradientIsTheSlope) { expect_gradients(*source_); }

class LanguageLossSlowTest : public LanguageLossTest {};

TEST_P(LanguageLossSlowTest, GradientIsTheSlope) { expect_gradients(*source_); }

class HowGradientsAreMadeTest : public LanguageLossTest {};

TEST_P(HowGradientsAreMadeTest, GivesTheSame) {
  LossSums sums, again;
  const std::vector<float> got = gradients<float>(*source_, 1, {}, &sums);
  EXPECT_EQ(gradients<float>(*source_, 3, {}, &again), got);
  EXPECT_EQ(again.loss, sums.loss);
  LossOptions<float> recomputed;
  recomputed.checkpoint = true;
  EXPECT_EQ(gradients<float>(*source_, 2, recomputed), got);

  LossOptions<float> in_parts;
  in_parts.part_rows = 7;
  const std::vector<float> of_parts = gradients<float>(*source_, 2, in_parts, &again);
  double square = 0, apart = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    square += static_cast<double>(got[i]) * static_cast<double>(got[i]);
    apart += std::pow(static_cast<double>(got[i]) - static_cast<double>(of_parts[i]), 2);
  }
  EXPECT_LT(std::sqrt(apart / square), 1e-5);
  EXPECT_NEAR(again.loss, sums.loss, 1e-5 * sums.loss);
}

std::string name_of(const ::testing::TestParamInfo<testing::TinyVariant>& variant) { return variant.param.name; }

std::vector<testing::TinyVariant> some_variants() {
  std::vector<testing::TinyVariant> out;
  for (const std::string_view type : {"llama", "gemma2", "gemma3_text", "gpt2", "falcon", "phi3", "qwen3_moe",
                                      "deepseek_v3", "gpt_oss", "llama4_text", "cohere2", "opt"})
    out.push_back({std::string(type), testing::tiny_config(std::string(type))});
  return out;
}

// Those of any architecture with a tied head or a window, and all others.
std::vector<testing::TinyVariant> variants(bool tied_or_windowed) {
  std::vector<testing::TinyVariant> out = testing::tiny_variants();
  std::erase_if(out, [&](const testing::TinyVariant& variant) {
    return (variant.name.ends_with("_tied") || variant.name.ends_with("_window")) != tied_or_windowed;
  });
  return out;
}

INSTANTIATE_TEST_SUITE_P(All, LanguageLossTest, ::testing::ValuesIn(variants(false)), name_of);
INSTANTIATE_TEST_SUITE_P(All, LanguageLossSlowTest, ::testing::ValuesIn(variants(true)), name_of);
INSTANTIATE_TEST_SUITE_P(Some, HowGradientsAreMadeTest, ::testing::ValuesIn(some_variants()), name_of);

TEST(TaughtLossTest, GradientIsTheSlopeOfBothLosses) {
  testing::TemporaryFolder folder;
  testing::write_tiny_model(folder.path(), testing::tiny_config("gemma2"));
  const auto source = model::ModelSource::open(folder.path());
  for (const double share : {1.0, 0.4}) {
    SCOPED_TRACE(share);
    ModelParameters<double> weights(*source), teacher(*source);
    teacher.freeze_all();
    move(weights, 0.02);  // away from the teacher, where the divergence has a slope
    LossOptions<double> options;
    options.teacher = &teacher;
    options.teacher_share = share;
    options.part_rows = 13;
    expect_equal(slopes(*source, weights, options));
  }
}

TEST(TaughtLossTest, SumsAreOfBothLosses) {
  testing::TemporaryFolder folder;
  testing::write_tiny_model(folder.path(), testing::tiny_config("llama"));
  const auto source = model::ModelSource::open(folder.path());
  ModelParameters<double> teacher(*source);
  teacher.freeze_all();
  LossSums alone, taught;
  gradients<double>(*source, 2, {}, &alone);
  LossOptions<double> options;
  options.teacher = &teacher;
  options.teacher_share = 0.25;
  gradients<double>(*source, 2, options, &taught);
  EXPECT_NEAR(taught.cross_entropy, alone.cross_entropy, 1e-9);
  EXPECT_NEAR(taught.divergence, 0, 1e-9);  // the teacher is the same model
  EXPECT_NEAR(taught.loss, 0.75 * alone.loss, 1e-9);
}

}  // namespace
}  // namespace nibble::train
