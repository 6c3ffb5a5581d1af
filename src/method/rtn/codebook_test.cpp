// nf4 and fp4 as bitsandbytes quantizes them, and what the other rules do.
#include "encoding/codebook.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "encoding/codebook_golden_test.h"
#include "method/problem.h"

namespace nibble::method {
namespace {

std::vector<std::byte> bytes_of(const Tensor& tensor) {
  std::vector<std::byte> all;
  for (int i = 0; i < tensor.view().n_parts; ++i) {
    const auto part = tensor.view().parts[static_cast<std::size_t>(i)].bytes;
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

Job plain_job(const Problem& p, std::string_view type) {
  Job job = job_of(p, type);
  job.statistics = {};
  return job;
}

TEST(RtnCodebook, GivesTheBytesOfBitsandbytes) {
  int n = 0;
  for (const encoding::CodebookGolden& golden : encoding::codebook_golden()) {
    const Problem p = {golden.shape.rows(), golden.shape.cols(), golden.weights, {}};
    const Job job = plain_job(p, golden.info->name);
    for (const std::int64_t step : {std::int64_t{1}, std::int64_t{5}, p.rows})
      EXPECT_EQ(bytes_of(encode(p, job, *get("rtn").make(job), step, 2)), golden.parts) << golden.name << " " << step;
    ++n;
  }
  EXPECT_GE(n, 13);
}

double error_of(const Problem& p, const Job& job) {
  const std::vector<float> values = run(p, job, get("rtn").make(job), 3);
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto error = static_cast<double>(values[i]) - static_cast<double>(p.weights[i]);
    const auto at = static_cast<std::size_t>(static_cast<std::int64_t>(i) % p.cols);
    sum +=
        error * error * (job.statistics.importance.empty() ? 1.0 : static_cast<double>(job.statistics.importance[at]));
  }
  return sum;
}

TEST(RtnCodebook, SearchedScalesLoseLess) {
  const Problem p = make_problem(11, 203, 2);
  std::vector<float> importance;
  for (std::int64_t c = 0; c < p.cols; ++c)
    importance.push_back(std::exp(1.5f * random_normal(5, 0, static_cast<std::uint64_t>(c))));
  for (const char* type : {"nf4", "nf4-b512", "fp4-b32", "nf4-dq"}) {
    for (const bool weighted : {false, true}) {
      Job job = plain_job(p, type);
      if (weighted) job.statistics.importance = importance;
      const double range = error_of(p, job);
      job.options.range = RangeRule::kMse;
      EXPECT_LT(error_of(p, job), 0.99 * range) << type << (weighted ? " weighted" : "");
    }
  }
}

TEST(RtnCodebook, RulesRoundTheWayTheySay) {
  const Problem p = make_problem(9, 64, 7);
  for (const char* type : {"nf4", "fp4", "nf4-b32"}) {
    const auto rounded = [&](Rounding rounding, std::uint64_t seed) {
      Job job = plain_job(p, type);
      job.options.rounding = rounding;
      job.options.seed = seed;
      return run(p, job, get("rtn").make(job), 2);
    };
    const auto floor = rounded(Rounding::kFloor, 0), ceil = rounded(Rounding::kCeil, 0);
    const auto one = rounded(Rounding::kStochastic, 1), two = rounded(Rounding::kStochastic, 2);
    EXPECT_EQ(one, rounded(Rounding::kStochastic, 1));
    EXPECT_NE(one, two);
    double bias = 0, gap = 0;
    for (std::size_t i = 0; i < floor.size(); ++i) {
      EXPECT_LE(floor[i], p.weights[i] + 1e-7f);
      EXPECT_GE(ceil[i], p.weights[i] - 1e-7f);
      EXPECT_TRUE(one[i] == floor[i] || one[i] == ceil[i]);
      bias += static_cast<double>(one[i] - p.weights[i]);
      gap += static_cast<double>(ceil[i] - floor[i]);
    }
    EXPECT_LT(std::fabs(bias), 0.08 * gap) << type;
  }
}

TEST(RtnCodebook, RefusesRowsThatBeginInsideABlock) {
  const Problem p = make_problem(8, 48, 1);
  const Job job = plain_job(p, "nf4");  // four rows take three blocks
  Tensor tensor = encoding::allocate(*job.target, job.shape);
  const auto quantizer = get("rtn").make(job);
  EXPECT_NO_THROW(quantizer->quantize_rows(p.weights.data() + 4 * 48, 4, 4, encoding::rows_at(tensor, 4)));
  EXPECT_THROW(quantizer->quantize_rows(p.weights.data() + 48, 1, 4, encoding::rows_at(tensor, 0)), Error);
  const Job nested = plain_job(p, "nf4-dq");
  EXPECT_THROW(get("rtn").make(nested)->quantize_rows(p.weights.data(), 0, 8, encoding::rows_at(tensor, 0)), Error);
}

}  // namespace
}  // namespace nibble::method
