// k-means of numbers against every way to cut them, and the quantizer on its encodings.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "encoding/codebook.h"
#include "method/kmeans/solver.h"
#include "method/problem.h"
#include "tensor/half.h"

namespace nibble::method::kmeans {
namespace {

std::vector<Point> random_points(std::size_t n, std::uint64_t seed) {
  std::vector<Point> points;
  for (std::size_t i = 0; i < n; ++i)
    points.push_back({random_normal(seed, 0, i), std::exp(static_cast<double>(random_normal(seed, 1, i)))});
  sort_points(points);
  return points;
}

double cost_of(std::span<const Point> points, std::size_t begin, std::size_t end) {
  double w = 0, wx = 0, sum = 0;
  for (std::size_t i = begin; i < end; ++i) {
    w += points[i].weight;
    wx += points[i].weight * static_cast<double>(points[i].value);
  }
  for (std::size_t i = begin; i < end; ++i) {
    const double d = static_cast<double>(points[i].value) - wx / w;
    sum += points[i].weight * d * d;
  }
  return sum;
}

// The least cost of points [0, end) in at most k clusters, by trying every cut.
double least_cost(std::span<const Point> points, int k) {
  const std::size_t n = points.size();
  std::vector<double> best(n + 1, std::numeric_limits<double>::infinity());
  best[0] = 0;
  for (int c = 0; c < k; ++c) {
    std::vector<double> next = best;
    for (std::size_t end = 1; end <= n; ++end) {
      for (std::size_t begin = 0; begin < end; ++begin)
        next[end] = std::min(next[end], best[begin] + cost_of(points, begin, end));
    }
    best = next;
  }
  return best[n];
}

double cost_at(std::span<const Point> points, const std::vector<float>& centroids) {
  double sum = 0;
  for (const Point& p : points) {
    double least = std::numeric_limits<double>::infinity();
    for (const float c : centroids)
      least = std::min(least, std::pow(static_cast<double>(p.value) - static_cast<double>(c), 2));
    sum += p.weight * least;
  }
  return sum;
}

TEST(KmeansSolver, FindsTheBestCentroids) {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    const auto points = random_points(20 + 7 * seed, seed);
    for (const int k : {1, 2, 3, 4, 8, 16}) {
      const auto centroids = best_centroids(points, k);
      EXPECT_EQ(centroids.size(), std::min<std::size_t>(static_cast<std::size_t>(k), points.size()));
      EXPECT_TRUE(std::ranges::is_sorted(centroids));
      const double least = least_cost(points, k);
      EXPECT_NEAR(cost_at(points, centroids), least, 1e-6 * least + 1e-9) << "seed " << seed << ", " << k;
    }
  }
}

TEST(KmeansSolver, FewValuesAreTheirOwnCentroids) {
  std::vector<Point> points = {{2, 1}, {-1, 3}, {2, 5}, {0.5f, 1}};
  sort_points(points);
  ASSERT_EQ(points.size(), 3u);
  EXPECT_EQ(points.back().weight, 6);
  EXPECT_THAT(best_centroids(points, 8), testing::ElementsAre(-1, 0.5f, 2));
  const Codebook book = best_codebook(points, 3);
  EXPECT_EQ(book.error, 0);
  EXPECT_THAT(book.centroids, testing::Contains(0.5f));
  EXPECT_EQ(best_centroids({}, 4).size(), 0u);
  EXPECT_EQ(best_codebook({}, 2).centroids[3], 0.0f);
}

TEST(KmeansSolver, SettlingIsNeverWorseThanItsStart) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    auto points = random_points(60, seed);
    for (Point& p : points) p.value *= seed % 2 == 0 ? 1e-7f : 3.0f;  // the first: few f16 values there
    std::vector<float> start;
    for (int i = 0; i < 8; ++i) start.push_back(points[static_cast<std::size_t>(i) * 7].value);
    std::vector<float> rounded;
    for (const float v : start) rounded.push_back(f16_to_f32(f32_to_f16(v)));
    const Codebook book = settle(points, start, 3);
    const std::vector<float> settled(book.centroids.begin(), book.centroids.begin() + 8);
    EXPECT_LE(cost_at(points, settled), cost_at(points, rounded) * (1 + 1e-12)) << seed;
    EXPECT_NEAR(book.error, cost_at(points, settled), 1e-6 * book.error) << seed;
    for (const float c : settled) EXPECT_EQ(c, f16_to_f32(f32_to_f16(c)));
  }
}

std::vector<float> random_importance(std::int64_t cols, std::uint64_t seed) {
  std::vector<float> importance;
  for (std::int64_t c = 0; c < cols; ++c)
    importance.push_back(std::exp(1.5f * random_normal(seed, 1, static_cast<std::uint64_t>(c))));
  return importance;
}

double weighted_error(const Problem& p, const std::vector<float>& importance, const std::vector<float>& values) {
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto d = static_cast<double>(p.weights[i]) - static_cast<double>(values[i]);
    sum += d * d * static_cast<double>(importance[i % importance.size()]);
  }
  return sum;
}

class KmeansType : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(All, KmeansType,
                         testing::Values("kmeans2-tensor", "kmeans4-tensor", "kmeans2-channel", "kmeans3-channel",
                                         "kmeans4-channel", "kmeans4-g64", "kmeans3-g50", "kmeans3-g700",
                                         "kmeans2-g250"),
                         [](const auto& i) {
                           std::string name = i.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(KmeansType, WeightsByImportance) {
  const Problem p = make_problem(14, 203, 9);
  const auto importance = random_importance(203, 4);
  Job job = job_of(p, GetParam());
  job.statistics = {importance, {}};
  const double weighted = weighted_error(p, importance, run(p, job, get("kmeans").make(job), 3));
  const double plain = weighted_error(p, importance, run(p, job, get("rtn").make(job), 3));
  EXPECT_LT(weighted, job.target->codebook.granularity == encoding::Granularity::kTensor ? plain : 0.99 * plain);
  const std::vector<float> ones(203, 1.0f);
  EXPECT_GE(weighted_error(p, ones, run(p, job, get("kmeans").make(job), 3)),
            weighted_error(p, ones, run(p, job, get("rtn").make(job), 3)));
}

// The error of each table against the best there is, but for the rounding of centroids to f16.
TEST_P(KmeansType, IsTheBestOfEveryTable) {
  const Problem p = make_problem(3, 120, 8);
  const auto importance = random_importance(120, 2);
  Job job = job_of(p, GetParam());
  job.statistics = {importance, {}};
  const double error = weighted_error(p, importance, run(p, job, get("kmeans").make(job), 1));
  const encoding::CodebookParams& params = job.target->codebook;
  const bool whole = params.granularity == encoding::Granularity::kTensor;
  const std::int64_t together = encoding::rows_per_table(params, 120);
  const std::int64_t width = whole ? 360 : encoding::centroid_columns(params, 120);
  double least = 0;
  const double mean = [&] {
    double sum = 0;
    for (const float v : importance) sum += static_cast<double>(v);
    return sum / 120;
  }();
  for (std::int64_t begin = 0; begin < 360;) {
    const std::int64_t end = whole || together > 1 ? std::min<std::int64_t>(360, begin + (whole ? 360 : together * 120))
                                                   : std::min(begin + width, (begin / 120 + 1) * 120);
    std::vector<Point> points;
    for (std::int64_t i = begin; i < end; ++i) {
      points.push_back({p.weights[static_cast<std::size_t>(i)],
                        static_cast<double>(importance[static_cast<std::size_t>(i % 120)]) / mean});
    }
    sort_points(points);
    least += mean * least_cost(points, encoding::centroid_count(params));
    begin = end;
  }
  EXPECT_GE(error, least * (1 - 1e-4));
  EXPECT_LE(error, least * (1 + 2e-3));
}

TEST(Kmeans, RefusesWhatF16CannotHold) {
  Problem p = make_problem(3, 60, 1);
  p.weights[70] = 70000.0f;
  for (const char* type : {"kmeans4-tensor", "kmeans4-channel"}) {
    const Job job = job_of(p, type);
    try {
      run(p, job, get("kmeans").make(job), 1);
      FAIL();
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("row 1, column 10: 70000 cannot be held in kmeans4"));
    }
  }
  EXPECT_THROW(get("kmeans").make(job_of(p, "nf4")), Error);
}

TEST(Kmeans, ImportanceOfEachExpert) {
  const Problem p = make_problem(8, 60, 6);
  auto two = random_importance(60, 1);
  const auto first = two, second = random_importance(60, 2);
  two.insert(two.end(), second.begin(), second.end());
  const auto with = [&](const std::vector<float>& importance) {
    Job job = job_of(p, "kmeans3-channel");
    job.statistics = {importance, {}};
    return run(p, job, get("kmeans").make(job), 2);
  };
  const auto both = with(two), a = with(first), b = with(second);
  EXPECT_TRUE(std::equal(both.begin(), both.begin() + 4 * 60, a.begin()));
  EXPECT_TRUE(std::equal(both.begin() + 4 * 60, both.end(), b.begin() + 4 * 60));
  EXPECT_NE(a, b);
}

}  // namespace
}  // namespace nibble::method::kmeans
