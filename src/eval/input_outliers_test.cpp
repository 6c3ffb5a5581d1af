// Streaming figures of inputs against those of the whole matrix in long double.
#include "eval/input_outliers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"

namespace nibble::eval {
namespace {

constexpr std::int64_t kTokens = 203, kCols = 37;
constexpr float kThreshold = 6;

// Normal about 0.3, with a column that is large in every token, one that is so in some and one in a single one.
std::vector<float> inputs() {
  std::vector<float> x(kTokens * kCols);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 0.3f + random_normal(3, 0, i);
  for (std::size_t t = 0; t < kTokens; ++t) {
    x[t * kCols + 5] = -40 - x[t * kCols + 5];
    if (t % 16 == 0) x[t * kCols + 11] = 7;  // 13 of 203: 6.4 %
    if (t % 17 == 0) x[t * kCols + 12] = 7;  // 12 of 203: 5.9 %
  }
  x[100 * kCols + 20] = kThreshold;
  return x;
}

class InputOutliersTest : public ::testing::Test {
 protected:
  // Given in runs of so many tokens, to a pool of so many threads.
  static InputOutliers seen(const std::vector<float>& x, std::int64_t run, int threads, std::int64_t cols = kCols) {
    ThreadPool pool(threads);
    CancelToken cancel;
    NullProgress progress;
    ExecContext context{pool, cancel, progress};
    InputOutliers outliers(1, cols, kThreshold);
    const auto n = static_cast<std::int64_t>(x.size()) / cols;
    for (std::int64_t t = 0; t < n; t += run) {
      const std::int64_t begins[] = {0, std::min(run, n - t)};
      outliers.add(context, x.data() + t * cols, begins);
    }
    return outliers;
  }
};

TEST_F(InputOutliersTest, MomentsAreThoseOfTheWhole) {
  const std::vector<float> x = inputs();
  const OutlierFigures got = seen(x, 50, 3).figures();
  long double mean = 0, square = 0, magnitude = 0, second = 0, fourth = 0;
  const auto n = static_cast<long double>(x.size());
  for (const float value : x) {
    mean += static_cast<long double>(value) / n;
    square += static_cast<long double>(value) * static_cast<long double>(value) / n;
    magnitude += std::fabs(static_cast<long double>(value)) / n;
  }
  for (const float value : x) {
    const long double distance = static_cast<long double>(value) - mean;
    second += distance * distance / n;
    fourth += distance * distance * distance * distance / n;
  }
  const auto expect_near = [](double value, long double expected) {
    EXPECT_NEAR(value, static_cast<double>(expected), 1e-12 * std::fabs(static_cast<double>(expected)));
  };
  expect_near(got.rms, std::sqrt(square));
  expect_near(got.mean_abs, magnitude);
  expect_near(got.kurtosis, fourth / (second * second));
  const auto [least, largest] = std::ranges::minmax_element(x);
  EXPECT_EQ(got.least, static_cast<double>(*least));
  EXPECT_EQ(got.largest, static_cast<double>(*largest));
  EXPECT_EQ(got.max_abs, -static_cast<double>(*least));
  expect_near(got.peak, -static_cast<long double>(*least) / std::sqrt(square));
  EXPECT_EQ(got.tokens, kTokens);
}

// Far from 0 raw sums of fourth powers would have no digit left: scipy.stats.kurtosis([0, 1, 2, 6], fisher=False).
TEST_F(InputOutliersTest, AMeanFarFromZeroCostsNoDigits) {
  for (const float offset : {0.0f, 1048576.0f}) {
    Moments all;
    for (const float value : {0.0f, 1.0f, 2.0f, 6.0f}) {
      const float one[] = {value + offset};
      all.merge(Moments(one));
    }
    EXPECT_EQ(all.count(), 4);
    EXPECT_NEAR(all.mean(), static_cast<double>(offset) + 2.25, 1e-9);
    EXPECT_NEAR(all.variance(), 5.1875, 1e-9);
    EXPECT_NEAR(all.kurtosis(), 56.45703125 / (5.1875 * 5.1875), 1e-9);
  }
  EXPECT_TRUE(std::isnan(Moments(std::vector<float>{2, 2, 2}).kurtosis()));
}

TEST_F(InputOutliersTest, ColumnsThatStandOutAreCounted) {
  const std::vector<float> x = inputs();
  const InputOutliers outliers = seen(x, 64, 2);
  EXPECT_EQ(outliers.features(), (std::vector<std::int64_t>{5, 11}));
  const OutlierFigures got = outliers.figures();
  EXPECT_EQ(got.features, 2);
  EXPECT_EQ(got.ever, 4);
  EXPECT_EQ(got.affected_tokens, 1);  // column 5 is large in all
  std::vector<double> largest(kCols);
  double peaks = 0;
  for (std::size_t t = 0; t < kTokens; ++t) {
    double square = 0, most = 0;
    for (std::size_t c = 0; c < kCols; ++c) {
      const double magnitude = std::fabs(static_cast<double>(x[t * kCols + c]));
      largest[c] = std::max(largest[c], magnitude);
      most = std::max(most, magnitude);
      square += magnitude * magnitude / kCols;
    }
    peaks += most / std::sqrt(square) / kTokens;
  }
  std::ranges::sort(largest);
  EXPECT_NEAR(got.channel_peak, largest.back() / largest[kCols / 2], 1e-12 * got.channel_peak);
  EXPECT_NEAR(got.token_peak, peaks, 1e-10);
}

TEST_F(InputOutliersTest, TheSameForAnyThreadsAndCuts) {
  const std::vector<float> x = inputs();
  const OutlierFigures one = seen(x, kTokens, 1).figures(), other = seen(x, 7, 4).figures();
  EXPECT_EQ(one.kurtosis, other.kurtosis);
  EXPECT_EQ(one.rms, other.rms);
  EXPECT_EQ(one.mean_abs, other.mean_abs);
  EXPECT_EQ(one.token_peak, other.token_peak);
  EXPECT_EQ(one.channel_peak, other.channel_peak);
}

// Each matrix has columns and tokens of its own; one without a token has no columns to compare with.
TEST_F(InputOutliersTest, StacksCountTheColumnsOfEachMatrix) {
  ThreadPool pool(2);
  CancelToken cancel;
  NullProgress progress;
  ExecContext context{pool, cancel, progress};
  InputOutliers outliers(3, 2, kThreshold);
  const std::vector<float> x = {1, 9, 1, 9, 8, 2, 1, 2};
  const std::int64_t begins[] = {0, 2, 2, 4};
  outliers.add(context, x.data(), begins);
  EXPECT_EQ(outliers.features(), (std::vector<std::int64_t>{1, 4}));
  const OutlierFigures got = outliers.figures();
  EXPECT_EQ(got.columns, 6);
  EXPECT_EQ(got.tokens, 4);
  EXPECT_EQ(got.affected_tokens, 0.75);
  EXPECT_EQ(got.channel_peak, 9 / 5.0);  // of 1, 9, 8, 2: the median is 5
}

TEST_F(InputOutliersTest, WhatIsNoNumberIsTold) {
  std::vector<float> x = inputs();
  x[40] = std::nanf("");
  x[80] = -HUGE_VALF;
  try {
    seen(x, 64, 2).figures();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kFormat);
    EXPECT_NE(std::string(error.what()).find("2 of 7511 inputs are NaN or infinite"), std::string::npos);
  }
}

}  // namespace
}  // namespace nibble::eval
