#include "linalg/gram.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"

namespace nibble::linalg {
namespace {

struct Runtime {
  explicit Runtime(int threads) : pool(threads) {}
  ThreadPool pool;
  CancelToken cancel;
  NullProgress progress;
  ExecContext context{pool, cancel, progress};
};

std::vector<float> random(std::int64_t n, std::uint64_t stream) {
  std::vector<float> out(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = random_normal(3, stream, i);
  return out;
}

std::size_t at(std::int64_t row, std::int64_t col, std::int64_t n) { return static_cast<std::size_t>(row * n + col); }

TEST(Gram, AddsProductsOfColumns) {
  const std::int64_t k = 7, m = 530, n = 1030;
  const auto x = random(k * n, 1), a = random(k * m, 2);
  std::vector<float> gram(static_cast<std::size_t>(n * n), 0.5f), cross(static_cast<std::size_t>(m * n), -1.0f);
  Runtime runtime(3);
  add_gram(runtime.context, k, n, x.data(), gram.data());
  fill_upper(runtime.context, n, gram.data());
  add_cross(runtime.context, k, m, n, a.data(), x.data(), cross.data());
  for (std::int64_t i = 0; i < n; i += 37) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0.5, other = -1;
      for (std::int64_t t = 0; t < k; ++t) {
        sum += static_cast<double>(x[at(t, i, n)]) * static_cast<double>(x[at(t, j, n)]);
        if (i < m) other += static_cast<double>(a[at(t, i, m)]) * static_cast<double>(x[at(t, j, n)]);
      }
      ASSERT_NEAR(gram[at(i, j, n)], sum, 1e-4) << i << ' ' << j;
      ASSERT_EQ(gram[at(i, j, n)], gram[at(j, i, n)]);
      if (i < m) {
        ASSERT_NEAR(cross[at(i, j, n)], other, 1e-4) << i << ' ' << j;
      }
    }
  }
}

TEST(Gram, TheSameForAnyNumberOfThreads) {
  const std::int64_t k = 33, n = 1100;
  const auto x = random(k * n, 4);
  std::vector<float> one(static_cast<std::size_t>(n * n)), three = one;
  Runtime a(1), b(3);
  add_gram(a.context, k, n, x.data(), one.data());
  add_gram(b.context, k, n, x.data(), three.data());
  fill_upper(a.context, n, one.data());
  fill_upper(b.context, n, three.data());
  EXPECT_EQ(one, three);
}

TEST(Gram, FactorOfInverse) {
  for (const std::int64_t n : {1, 2, 5, 64, 131}) {
    const std::int64_t k = 2 * n + 3;
    const auto x = random(k * n, 5);
    std::vector<float> a(static_cast<std::size_t>(n * n));
    Runtime runtime(2);
    add_gram(runtime.context, k, n, x.data(), a.data());
    fill_upper(runtime.context, n, a.data());
    std::vector<float> u = a;
    ASSERT_TRUE(factor_of_inverse(n, u.data()));
    // Uᵀ U a is the identity.
    std::vector<double> inverse(static_cast<std::size_t>(n * n));
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        if (j < i) {
          ASSERT_EQ(u[at(i, j, n)], 0.0f);
        }
        for (std::int64_t t = 0; t <= std::min(i, j); ++t)
          inverse[at(i, j, n)] += static_cast<double>(u[at(t, i, n)]) * static_cast<double>(u[at(t, j, n)]);
      }
    }
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (std::int64_t t = 0; t < n; ++t) sum += inverse[at(i, t, n)] * static_cast<double>(a[at(t, j, n)]);
        ASSERT_NEAR(sum, i == j ? 1 : 0, 2e-3) << n << ": " << i << ' ' << j;
      }
    }
  }
}

TEST(Gram, WhatIsNotPositiveDefiniteIsTold) {
  std::vector<float> singular = {1, 1, 1, 1}, negative = {1, 0, 0, -1}, empty_column = {0, 0, 0, 2};
  EXPECT_FALSE(factor_of_inverse(2, negative.data()));
  EXPECT_FALSE(factor_of_inverse(2, empty_column.data()));
  EXPECT_FALSE(factor_of_inverse(2, singular.data()));
}

}  // namespace
}  // namespace nibble::linalg
