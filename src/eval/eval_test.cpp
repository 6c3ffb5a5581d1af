// Statistics and per-token scores against values worked out by hand or by numpy.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "eval/measures.h"
#include "eval/statistics.h"
#include "eval/token_score.h"

namespace nibble::eval {
namespace {

TEST(Statistics, MeanAndItsError) {
  const std::vector<double> values = {1, 2, 3, 4};
  const MeanError result = mean_with_error(values);
  EXPECT_DOUBLE_EQ(result.mean, 2.5);
  EXPECT_DOUBLE_EQ(result.error, std::sqrt(5.0 / 3.0 / 4.0));  // sample variance 5/3
  EXPECT_EQ(mean_with_error(std::vector<double>{7}).error, 0);
}

TEST(Statistics, QuantilesInterpolateAsNumpyDoes) {
  std::vector<double> values(1001);
  std::iota(values.begin(), values.end(), 0.0);
  EXPECT_DOUBLE_EQ(quantile(values, 0.5), 500);
  EXPECT_DOUBLE_EQ(quantile(values, 0.999), 999);
  EXPECT_DOUBLE_EQ(quantile(values, 1.0), 1000);
  const std::vector<double> few = {1, 10, 100};
  EXPECT_DOUBLE_EQ(quantile(few, 0.25), 5.5);   // numpy.percentile([1, 10, 100], 25)
  EXPECT_DOUBLE_EQ(quantile(few, 0.99), 98.2);  // numpy.percentile([1, 10, 100], 99)
  EXPECT_DOUBLE_EQ(quantile(std::vector<double>{3}, 0.7), 3);
}

TEST(Statistics, Correlation) {
  const std::vector<double> a = {1, 2, 3, 5};
  const std::vector<double> b = {-2, -4, -6, -10};
  EXPECT_NEAR(correlation(a, b), -1, 1e-15);
  EXPECT_NEAR(correlation(a, std::vector<double>{1, 0, 0, 1}), 1.0 / std::sqrt(35.0), 1e-15);
  EXPECT_EQ(correlation(a, std::vector<double>{4, 4, 4, 4}), 0);
}

TEST(Statistics, SharesAndPairs) {
  const Interval half = wilson_interval(5, 10);  // statsmodels: proportion_confint(5, 10, method="wilson")
  EXPECT_NEAR(half.low, 0.2365931, 1e-7);
  EXPECT_NEAR(half.high, 0.7634069, 1e-7);
  const Interval none = wilson_interval(0, 10);
  EXPECT_EQ(none.low, 0);
  EXPECT_NEAR(none.high, 0.2775328, 1e-7);
  EXPECT_EQ(wilson_interval(10, 10).high, 1);
  EXPECT_EQ(mcnemar_exact(0, 0), 1);
  EXPECT_EQ(mcnemar_exact(4, 4), 1);
  EXPECT_NEAR(mcnemar_exact(0, 6), 2.0 / 64, 1e-12);
  EXPECT_NEAR(mcnemar_exact(2, 9), 2 * (1 + 11 + 55) / 2048.0, 1e-12);
  EXPECT_EQ(mcnemar_exact(2, 9), mcnemar_exact(9, 2));
  EXPECT_GE(mcnemar_exact(1000, 3000), 0);
  const Interval constant = bootstrap_mean(std::vector<double>(20, 0.25), 100, 1);
  EXPECT_EQ(constant.low, 0.25);
  EXPECT_EQ(constant.high, 0.25);
}

TEST(Statistics, BootstrapOfProportionalPairsIsExact) {
  std::vector<double> a, b;
  for (int i = 0; i < 50; ++i) {
    a.push_back(1.0 + i % 7);
    b.push_back(2 * a.back());
  }
  const RatioInterval result = bootstrap_ratio(a, b, 500, 1);
  EXPECT_DOUBLE_EQ(result.ratio, 0.5);
  EXPECT_DOUBLE_EQ(result.low, 0.5);
  EXPECT_DOUBLE_EQ(result.high, 0.5);
}

TEST(Statistics, BootstrapIntervalMatchesTheory) {
  // b constant: the ratio is the mean of a, so the interval is mean +- 1.96 standard errors.
  std::vector<double> a(400), b(400, 1.0);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = 1 + (i % 2 == 0 ? 0.5 : -0.5);
  const RatioInterval result = bootstrap_ratio(a, b, 4000, 7);
  const double error = 0.5 / std::sqrt(400.0);
  EXPECT_DOUBLE_EQ(result.ratio, 1);
  EXPECT_NEAR(result.low, 1 - 1.96 * error, 0.2 * error);
  EXPECT_NEAR(result.high, 1 + 1.96 * error, 0.2 * error);
  const RatioInterval again = bootstrap_ratio(a, b, 4000, 7);
  EXPECT_EQ(result.low, again.low);
  EXPECT_NE(result.low, bootstrap_ratio(a, b, 4000, 8).low);
}

TEST(TokenScore, SoftmaxAndDivergence) {
  const std::vector<float> p = {std::log(0.5f), std::log(0.25f), std::log(0.25f)};
  const std::vector<float> q = {std::log(0.25f) + 3, std::log(0.25f) + 3, std::log(0.5f) + 3};  // shifted: same softmax
  const LogitSummary sp = summarize_logits(p.data(), 3);
  const LogitSummary sq = summarize_logits(q.data(), 3);
  EXPECT_NEAR(sp.log_sum, 0, 1e-7);
  EXPECT_NEAR(sq.log_sum, 3, 1e-6);
  EXPECT_EQ(sp.top, 0);
  EXPECT_EQ(sq.top, 2);
  EXPECT_NEAR(kl_divergence(p.data(), sp, q.data(), sq, 3), 0.25 * std::log(2.0), 1e-6);
  EXPECT_EQ(kl_divergence(p.data(), sp, p.data(), sp, 3), 0);
}

TEST(TokenScore, HugeLogitsDoNotOverflowAndEqualOnesPreferTheFirst) {
  const std::vector<float> logits = {3000, 3000, -3000};
  const LogitSummary summary = summarize_logits(logits.data(), 3);
  EXPECT_EQ(summary.top, 0);
  EXPECT_NEAR(summary.log_sum, 3000 + std::log(2.0), 1e-9);
}

TokenScores synthetic_scores(bool compared) {
  TokenScores scores;
  for (int i = 0; i < 1000; ++i) {
    scores.nll.push_back(2.0 + (compared ? 0.1 : 0.0));
    if (!compared) continue;
    scores.kld.push_back(i * 0.001);
    scores.delta_p.push_back(i % 2 == 0 ? 0.3 : -0.1);
    scores.same_top.push_back(i % 4 != 0);
  }
  return scores;
}

TEST(Measures, FiguresOfKnownScores) {
  const TokenScores reference = synthetic_scores(false);
  const TokenScores scores = synthetic_scores(true);
  const Measures measures = measure(scores, &reference);
  EXPECT_NEAR(measures.perplexity, std::exp(2.1), 1e-9);
  EXPECT_NEAR(measures.perplexity_error, 0, 1e-9);
  ASSERT_TRUE(measures.distance.has_value());
  EXPECT_NEAR(measures.distance->kld.mean, 0.4995, 1e-12);
  EXPECT_NEAR(measures.distance->kld_median, 0.4995, 1e-12);
  EXPECT_NEAR(measures.distance->kld_p999, 0.998001, 1e-12);
  EXPECT_NEAR(measures.distance->kld_max, 0.999, 1e-12);
  EXPECT_NEAR(measures.distance->top1.mean, 0.75, 1e-12);
  EXPECT_NEAR(measures.distance->delta_p.mean, 0.1, 1e-12);
  EXPECT_NEAR(measures.distance->delta_p_rms, std::sqrt(0.05), 1e-12);
  EXPECT_NEAR(measures.distance->ln_ppl_ratio.mean, 0.1, 1e-12);
  EXPECT_FALSE(measure(reference, nullptr).distance.has_value());

  json::Value object;
  add_to_json(measures, "_exact", object);
  EXPECT_DOUBLE_EQ(object.at("kld_mean_exact").as_number(), measures.distance->kld.mean);
  EXPECT_EQ(object.find("kld_mean"), nullptr);
}

TEST(Measures, ChunkSums) {
  EXPECT_EQ(chunk_sums(std::vector<double>{1, 2, 3, 4, 5, 6}, 3), (std::vector<double>{6, 15}));
}

}  // namespace
}  // namespace nibble::eval
