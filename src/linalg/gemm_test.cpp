#include "linalg/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

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

}  // namespace
}  // namespace nibble::linalg
