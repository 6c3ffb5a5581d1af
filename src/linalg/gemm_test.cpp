#include "linalg/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/exec_context.h"
#include "base/rng.h"
#include "base/thread_pool.h"
#include "linalg/core.h"

namespace nibble::linalg {
namespace {

std::vector<float> random_matrix(std::uint64_t stream, std::int64_t n) {
  std::vector<float> out(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = random_normal(1, stream, i);
  return out;
}

TEST(Core, TheUsersChoiceStands) {
  setenv("OPENBLAS_CORETYPE", "Haswell", 1);
  EXPECT_EQ(better_core(), nullptr);
  unsetenv("OPENBLAS_CORETYPE");
  const char* core = better_core();
  if (core != nullptr) {
    EXPECT_TRUE(std::string(core) == "SkylakeX" || std::string(core) == "Haswell");
  }
}

TEST(Gemm, AgreesWithDoubleSumsAndRespectsStrides) {
  for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{1, 1, 1}, {1, 7, 33}, {5, 3, 64}, {17, 40, 129}}) {
    const std::int64_t lda = k + 3, ldb = k + 1, ldc = n + 2;
    const auto a = random_matrix(1, m * lda);
    const auto b = random_matrix(2, n * ldb);
    std::vector<float> c(static_cast<std::size_t>(m * ldc), -7.0f);
    gemm_nt(m, n, k, a.data(), lda, b.data(), ldb, c.data(), ldc);
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < ldc; ++j) {
        const float got = c[static_cast<std::size_t>(i * ldc + j)];
        if (j >= n) {
          EXPECT_EQ(got, -7.0f);
          continue;
        }
        double sum = 0;
        for (std::int64_t l = 0; l < k; ++l) {
          sum +=
              static_cast<double>(a[static_cast<std::size_t>(i * lda + l)]) * b[static_cast<std::size_t>(j * ldb + l)];
        }
        EXPECT_NEAR(got, sum, 1e-5 * (1 + std::sqrt(static_cast<double>(k)))) << m << ' ' << n << ' ' << k;
      }
    }
  }
}

TEST(Gemm, SameBitsFromSeveralThreadsAtOnce) {
  constexpr std::int64_t kM = 33, kN = 48, kK = 200;
  const auto a = random_matrix(3, kM * kK);
  const auto b = random_matrix(4, kN * kK);
  std::vector<float> expected(kM * kN);
  gemm_nt(kM, kN, kK, a.data(), kK, b.data(), kK, expected.data(), kN);
  ThreadPool pool(4);
  std::vector<std::vector<float>> results(64, std::vector<float>(kM * kN));
  pool.parallel_dynamic(64, [&](std::int64_t i) {
    gemm_nt(kM, kN, kK, a.data(), kK, b.data(), kK, results[static_cast<std::size_t>(i)].data(), kN);
  });
  for (const auto& result : results) EXPECT_EQ(result, expected);
}

TEST(Multiply, RoundedFactorsInEveryLieNearDoubleSums) {
  if (!has_bf16_products(machine_isa())) GTEST_SKIP() << "no products of bf16 here";
  ThreadPool pool(2);
  CancelToken cancel;
  NullProgress progress;
  ExecContext context{pool, cancel, progress};
  for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{1, 1, 1}, {3, 40, 33}, {33, 17, 31}, {600, 70, 1100}}) {
    for (int lies = 0; lies < 4; ++lies) {
      const bool a_turned = (lies & 1) != 0, b_turned = (lies & 2) != 0;
      const std::int64_t lda = (a_turned ? m : k) + 3, ldb = (b_turned ? k : n) + 1, ldc = n + 2;
      const auto a = random_matrix(5, (a_turned ? k : m) * lda), b = random_matrix(6, (b_turned ? n : k) * ldb);
      const auto at = [](const std::vector<float>& from, std::int64_t i) {
        return static_cast<double>(from[static_cast<std::size_t>(i)]);
      };
      for (const bool adds : {false, true}) {
        for (const auto& [precision, error] : {std::pair{Precision::kBf16x3, 3e-5}, {Precision::kBf16, 6e-3}}) {
          std::vector<float> c(static_cast<std::size_t>(m * ldc), -7.0f);
          multiply(context, precision, a_turned ? Lies::kTransposed : Lies::kAsIs,
                   b_turned ? Lies::kTransposed : Lies::kAsIs, m, n, k, a.data(), lda, b.data(), ldb, adds, c.data(),
                   ldc);
          double apart = 0, size = 0;
          for (std::int64_t i = 0; i < m; ++i) {
            for (std::int64_t j = 0; j < n; ++j) {
              double sum = adds ? -7.0 : 0.0, square = 0;
              for (std::int64_t l = 0; l < k; ++l) {
                const double product =
                    at(a, a_turned ? l * lda + i : i * lda + l) * at(b, b_turned ? j * ldb + l : l * ldb + j);
                sum += product;
                square += product * product;
              }
              const double d = at(c, i * ldc + j) - sum;
              apart += d * d;
              size += square;
            }
            for (std::int64_t j = n; j < ldc; ++j) EXPECT_EQ(c[static_cast<std::size_t>(i * ldc + j)], -7.0f);
          }
          EXPECT_LT(std::sqrt(apart / size), error) << m << ' ' << n << ' ' << k << ' ' << lies << ' ' << adds;
        }
      }
    }
  }
}

}  // namespace
}  // namespace nibble::linalg
