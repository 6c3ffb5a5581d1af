#include "linalg/hadamard.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/rng.h"

namespace nibble::linalg {
namespace {

// The largest number of a aᵀ - scale I.
double distance_from_orthogonal(std::int64_t n, const std::vector<float>& a, double scale) {
  double worst = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j <= i; ++j) {
      double sum = i == j ? -scale : 0;
      for (std::int64_t c = 0; c < n; ++c)
        sum += static_cast<double>(a[static_cast<std::size_t>(i * n + c)]) * a[static_cast<std::size_t>(j * n + c)];
      worst = std::max(worst, std::abs(sum));
    }
  }
  return worst;
}

std::vector<float> matrix_of(const Mixer& mixer) {
  const std::int64_t n = mixer.size();
  std::vector<float> m(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < n; ++i) m[static_cast<std::size_t>(i * (n + 1))] = 1;
  mixer.multiply(m.data(), n);
  return m;
}

TEST(Hadamard, PaleysMatricesAreHadamards) {
  int made = 0;
  for (std::int64_t n = 1; n <= 256; ++n) {
    const std::vector<float> h = paley_hadamard(n);
    if (h.empty()) continue;
    SCOPED_TRACE(n);
    ++made;
    for (const float value : h) ASSERT_EQ(std::fabs(value), 1);
    for (std::int64_t row = 0; row < n; ++row) EXPECT_EQ(h[static_cast<std::size_t>(row * n)], 1);
    EXPECT_EQ(distance_from_orthogonal(n, h, static_cast<double>(n)), 0);
  }
  EXPECT_EQ(made, 37);
  for (const std::int64_t n : {12, 20, 28, 36, 44, 60, 76, 180, 200, 284}) EXPECT_FALSE(paley_hadamard(n).empty()) << n;
  for (const std::int64_t n : {0, 1, 2, 6, 40, 52, 92}) EXPECT_TRUE(paley_hadamard(n).empty()) << n;
}

TEST(Hadamard, RandomMatricesAreOrthogonalAndTheirFirstColumnIsConstant) {
  for (const std::int64_t n : {1, 2, 3, 43, 129}) {
    const std::vector<float> q = random_orthogonal(n, 7);
    EXPECT_LT(distance_from_orthogonal(n, q, 1), 1e-6) << n;
    for (std::int64_t row = 0; row < n; ++row)
      EXPECT_NEAR(q[static_cast<std::size_t>(row * n)], 1 / std::sqrt(static_cast<double>(n)), 1e-7);
  }
  EXPECT_EQ(random_orthogonal(43, 7), random_orthogonal(43, 7));
  EXPECT_NE(random_orthogonal(43, 7), random_orthogonal(43, 8));
}

// Powers of two, 12 and 20 and 28 times those, bases of both constructions, and sizes without any.
TEST(Hadamard, MixersAreOrthonormalOfEverySize) {
  for (const std::int64_t n : {1, 2, 64, 96, 160, 224, 288, 400, 576, 6, 43, 86, 172, 130}) {
    SCOPED_TRACE(n);
    const Mixer mixer(n, 3);
    ASSERT_EQ(mixer.size(), n);
    const std::vector<float> m = matrix_of(mixer);
    EXPECT_LT(distance_from_orthogonal(n, m, 1), 2e-6);
    const float size = 1 / std::sqrt(static_cast<float>(n));
    for (std::int64_t row = 0; row < n; ++row) EXPECT_NEAR(m[static_cast<std::size_t>(row * n)], size, 1e-6);
    if (mixer.is_hadamard()) {
      for (const float value : m) EXPECT_NEAR(std::fabs(value), size, 1e-6);
    }
  }
}

TEST(Hadamard, SizesOfModelsHaveOne) {
  for (const std::int64_t n : {576,  768,  896,  960,  1280, 1536, 1600, 2048, 2304, 2560,
                               2880, 3072, 3584, 4096, 4544, 5120, 6144, 7168, 8192, 14336})
    EXPECT_TRUE(Mixer(n, 0).is_hadamard()) << n;
  EXPECT_FALSE(Mixer(11008, 0).is_hadamard());  // 43 * 256: random of 43
  EXPECT_THROW(Mixer(3 * 8193, 0), Error);
}

TEST(Hadamard, TransposedUndoesAndColumnsAreOnTheirOwn) {
  for (const std::int64_t n : {64, 96, 86}) {
    SCOPED_TRACE(n);
    constexpr std::int64_t kWidth = 37;
    const Mixer mixer(n, 5);
    std::vector<float> x(static_cast<std::size_t>(n * kWidth));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = random_normal(2, 0, i);
    std::vector<float> y = x;
    mixer.multiply(y.data(), kWidth);
    for (std::int64_t col = 0; col < kWidth; ++col) {
      std::vector<float> one(static_cast<std::size_t>(n));
      for (std::int64_t i = 0; i < n; ++i)
        one[static_cast<std::size_t>(i)] = x[static_cast<std::size_t>(i * kWidth + col)];
      mixer.multiply(one.data(), 1);
      for (std::int64_t i = 0; i < n; ++i)
        EXPECT_NEAR(one[static_cast<std::size_t>(i)], y[static_cast<std::size_t>(i * kWidth + col)], 1e-5);
    }
    mixer.multiply_transposed(y.data(), kWidth);
    for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(y[i], x[i], 1e-5);
  }
}

}  // namespace
}  // namespace nibble::linalg
