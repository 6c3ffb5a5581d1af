#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"

namespace nibble::engine {
namespace {

const std::vector<float> kLogits = {0.0f, 2.0f, 1.0f, -1.0f, 2.0f};

std::map<int, int> histogram(const SamplerOptions& options, int n = 20000) {
  Sampler sampler(options);
  std::map<int, int> counts;
  for (int i = 0; i < n; ++i) ++counts[sampler.sample(kLogits)];
  return counts;
}

TEST(Sampler, GreedyTakesTheLikeliestAndTheSmallerIdOfEquals) { EXPECT_EQ(Sampler({}).sample(kLogits), 1); }

TEST(Sampler, TemperatureGivesTheSoftmax) {
  const float temperature = 0.7f;
  const auto counts = histogram({.temperature = temperature, .seed = 3});
  double total = 0;
  for (const float x : kLogits) total += std::exp(x / temperature);
  for (std::size_t i = 0; i < kLogits.size(); ++i) {
    const double expected = std::exp(kLogits[i] / temperature) / total;
    const double got = counts.contains(static_cast<int>(i)) ? counts.at(static_cast<int>(i)) / 20000.0 : 0;
    EXPECT_NEAR(got, expected, 4 * std::sqrt(expected / 20000) + 1e-4) << i;
  }
}

TEST(Sampler, TopKTopPMinPKeepTheLikeliest) {
  auto counts = histogram({.temperature = 1, .top_k = 2});
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_TRUE(counts.contains(1) && counts.contains(4));
  EXPECT_NEAR(counts[1], 10000, 400);
  // Probabilities .38 .38 .14 .05 .02: half of the mass needs two tokens, 0.8 of it three.
  counts = histogram({.temperature = 1, .top_p = 0.5f});
  EXPECT_EQ(counts.size(), 2u);
  counts = histogram({.temperature = 1, .top_p = 0.8f});
  EXPECT_EQ(counts.size(), 3u);
  EXPECT_TRUE(counts.contains(2));
  counts = histogram({.temperature = 1, .top_p = 0});
  EXPECT_EQ(counts.size(), 1u);
  counts = histogram({.temperature = 1, .min_p = 0.3f});
  EXPECT_EQ(counts.size(), 3u);
  counts = histogram({.temperature = 1, .min_p = 0.4f});
  EXPECT_EQ(counts.size(), 2u);
}

TEST(Sampler, SeedsAreReproducibleAndDiffer) {
  Sampler a({.temperature = 1, .seed = 5}), b({.temperature = 1, .seed = 5}), c({.temperature = 1, .seed = 6});
  int differ = 0;
  for (int i = 0; i < 200; ++i) {
    const auto id = a.sample(kLogits);
    EXPECT_EQ(id, b.sample(kLogits));
    differ += id != c.sample(kLogits);
  }
  EXPECT_GT(differ, 50);
}

TEST(Sampler, RepetitionPenaltyWithinTheWindow) {
  Sampler sampler({.repetition_penalty = 4, .repetition_window = 1});
  const std::vector<float> logits = {1.0f, 2.0f, -3.0f};
  EXPECT_EQ(sampler.sample(logits), 1);
  EXPECT_EQ(sampler.sample(logits), 0);  // 2 / 4 < 1
  EXPECT_EQ(sampler.sample(logits), 1);  // token 1 has left the window
  Sampler negative({.repetition_penalty = 2});
  negative.accept(0);
  EXPECT_EQ(negative.sample(std::vector<float>{-1.0f, -1.5f}), 1);  // -1 * 2 < -1.5
}

TEST(Sampler, LogitBiasComesFirst) {
  const float never = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(Sampler({.logit_bias = {{3, 10.0f}}}).sample(kLogits), 3);
  EXPECT_EQ(Sampler({.logit_bias = {{1, never}, {4, -0.5f}}}).sample(kLogits), 4);
  EXPECT_EQ(Sampler({.logit_bias = {{0, 1.5f}, {0, 1.5f}}}).sample(kLogits), 0) << "biases of one token add up";
  const auto counts = histogram({.logit_bias = {{1, never}, {4, never}}, .temperature = 1});
  EXPECT_FALSE(counts.contains(1) || counts.contains(4));
  EXPECT_EQ(counts.size(), 3u);
  Sampler penalized({.logit_bias = {{2, 4.0f}}, .repetition_penalty = 4});
  EXPECT_EQ(penalized.sample(kLogits), 2);  // (1 + 4) / 4 < 2 from now on
  EXPECT_EQ(penalized.sample(kLogits), 1);
  EXPECT_THROW(Sampler({.logit_bias = {{5, 1.0f}}}).sample(kLogits), Error);
  EXPECT_THROW(Sampler({.logit_bias = {{-1, 1.0f}}}), Error);
  EXPECT_THROW(Sampler({.logit_bias = {{1, -never}}}), Error);
  EXPECT_THROW(Sampler({.logit_bias = {{1, std::numeric_limits<float>::quiet_NaN()}}}), Error);
}

TEST(Sampler, RefusesWhatMakesNoSense) {
  EXPECT_THROW(Sampler({.temperature = -1}), Error);
  EXPECT_THROW(Sampler({.temperature = std::numeric_limits<float>::quiet_NaN()}), Error);
  EXPECT_THROW(Sampler({.top_p = 1.5f}), Error);
  EXPECT_THROW(Sampler({.top_k = -1}), Error);
  EXPECT_THROW(Sampler({.repetition_penalty = 0}), Error);
  EXPECT_THROW(Sampler({}).sample(std::vector<float>{0, std::numeric_limits<float>::quiet_NaN()}), Error);
  EXPECT_THROW(Sampler({}).sample({}), Error);
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Sampler({.temperature = 1}).sample(std::vector<float>{-inf, 0, -inf}), 1);
}

}  // namespace
}  // namespace nibble::engine
