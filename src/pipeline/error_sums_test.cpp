#include "pipeline/error_sums.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/cpu.h"
#include "base/rng.h"
#include "pipeline/error_lanes.h"

namespace nibble::pipeline {
namespace {

std::vector<float> random_values(std::size_t n, std::uint64_t stream) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = random_normal(1, stream, i);
  return values;
}

TEST(ErrorSums, AgreeWithPlainSumsOnEveryTail) {
  for (const std::size_t n : {1u, 15u, 16u, 17u, 2047u, 2048u, 2049u, 10000u}) {
    const auto w = random_values(n, 0);
    auto v = random_values(n, 1);
    for (std::size_t i = 0; i < n; ++i) v[i] = w[i] + 0.05f * v[i];
    double w2 = 0, v2 = 0, wv = 0, e2 = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double a = static_cast<double>(w[i]), b = static_cast<double>(v[i]);
      w2 += a * a, v2 += b * b, wv += a * b, e2 += (a - b) * (a - b);
    }
    const ErrorSums sums = sum_errors(w.data(), v.data(), static_cast<std::int64_t>(n));
    EXPECT_NEAR(sums.relative_mse(), e2 / w2, 1e-5 * e2 / w2) << n;
    EXPECT_NEAR(sums.cosine(), wv / std::sqrt(w2 * v2), 1e-6) << n;
    EXPECT_NEAR(sums.snr_db(), -10 * std::log10(e2 / w2), 1e-4) << n;
  }
}

TEST(ErrorSums, EveryInstructionSetGivesTheSameNumbers) {
  if (machine_isa() < Isa::kAvx2) GTEST_SKIP() << "this machine has no AVX2";
  const auto w = random_values(2048, 2);
  const auto v = random_values(2048, 3);
  for (const std::int64_t n : {1, 31, 2000, 2048}) {
    const LaneSums a = lanes_sum_block(w.data(), v.data(), n);
    const LaneSums b = error_loops_avx2().sum_block(w.data(), v.data(), n);
    EXPECT_EQ(a.w2, b.w2);
    EXPECT_EQ(a.v2, b.v2);
    EXPECT_EQ(a.e2, b.e2);
  }
}

TEST(ErrorSums, ExactAndZeroTensors) {
  const std::vector<float> zeros(100, 0.0f), ones(100, 1.0f);
  EXPECT_EQ(sum_errors(ones.data(), ones.data(), 100).relative_mse(), 0);
  EXPECT_EQ(sum_errors(ones.data(), ones.data(), 100).cosine(), 1);
  EXPECT_EQ(sum_errors(zeros.data(), zeros.data(), 100).relative_mse(), 0);
  EXPECT_TRUE(std::isinf(sum_errors(zeros.data(), ones.data(), 100).relative_mse()));
}

TEST(ErrorSums, FindsTheFirstValueThatIsNotFinite) {
  auto values = random_values(5000, 4);
  EXPECT_EQ(find_not_finite(values.data(), 5000), 5000);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    for (const std::size_t at : {0u, 17u, 2047u, 2048u, 4999u}) {
      auto copy = values;
      copy[at] = bad;
      EXPECT_EQ(find_not_finite(copy.data(), 5000), static_cast<std::int64_t>(at));
    }
  }
  values[3] = std::numeric_limits<float>::max();
  values[4] = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(find_not_finite(values.data(), 5000), 5000);
}

}  // namespace
}  // namespace nibble::pipeline
