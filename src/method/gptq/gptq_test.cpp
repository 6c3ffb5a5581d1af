// GPTQ against the published algorithm in f64, written as its paper has it.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/cpu.h"
#include "base/error.h"
#include "method/affine_range.h"
#include "method/gptq/affine.h"
#include "method/gptq/block.h"
#include "method/gptq/hessian.h"
#include "method/problem.h"
#include "method/rtn/quantizers.h"

namespace nibble::method::gptq {
namespace {

using Matrix = std::vector<double>;  // (rows, cols)

// Algorithm 1 of the paper column by column: the inverse itself, from which each rounded column is eliminated.
std::vector<float> published(const Problem& p, const Job& job) {
  const std::int64_t n = p.cols;
  const encoding::AffineParams& params = job.target->affine;
  const auto at = [n](std::int64_t r, std::int64_t c) { return static_cast<std::size_t>(r * n + c); };
  Matrix h(p.gram.begin(), p.gram.end());
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  if (job.options.act_order)
    std::ranges::stable_sort(order, std::greater(), [&](std::int64_t c) { return h[at(c, c)]; });
  double mean = 0;
  for (std::int64_t i = 0; i < n; ++i) mean += h[at(i, i)] / static_cast<double>(n);
  for (std::int64_t i = 0; i < n; ++i) h[at(i, i)] += 0.01 * mean;
  // Gauss-Jordan.
  Matrix inverse(h.size());
  for (std::int64_t i = 0; i < n; ++i) inverse[at(i, i)] = 1;
  for (std::int64_t i = 0; i < n; ++i) {
    const double pivot = h[at(i, i)];
    for (std::int64_t j = 0; j < n; ++j) {
      h[at(i, j)] /= pivot;
      inverse[at(i, j)] /= pivot;
    }
    for (std::int64_t r = 0; r < n; ++r) {
      const double factor = h[at(r, i)];
      if (r == i || factor == 0) continue;
      for (std::int64_t j = 0; j < n; ++j) {
        h[at(r, j)] -= factor * h[at(i, j)];
        inverse[at(r, j)] -= factor * inverse[at(i, j)];
      }
    }
  }
  const std::int64_t width = encoding::group_columns(params, n);
  std::vector<float> out(p.weights.size());
  Matrix w(p.weights.begin(), p.weights.end());
  std::vector<encoding::ScaleZero> scales(static_cast<std::size_t>(p.rows * encoding::groups_per_row(params, n)));
  const auto choose = [&](std::int64_t r, std::int64_t begin) {
    const std::int64_t end = std::min(n, begin + width);
    std::vector<float> group;
    for (std::int64_t c = begin; c < end; ++c) group.push_back(static_cast<float>(w[at(r, c)]));
    scales[static_cast<std::size_t>(r * encoding::groups_per_row(params, n) + begin / width)] =
        choose_scale(params, job.options.range, group.data(), nullptr, end - begin);
  };
  for (std::int64_t r = 0; r < p.rows && job.options.act_order; ++r) {
    for (std::int64_t begin = 0; begin < n; begin += width) choose(r, begin);
  }
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t c = order[static_cast<std::size_t>(i)];
    for (std::int64_t r = 0; r < p.rows; ++r) {
      if (!job.options.act_order && c % width == 0) choose(r, c);
      const auto& scale = scales[static_cast<std::size_t>(r * encoding::groups_per_row(params, n) + c / width)];
      const float value =
          encoding::decode_code(encoding::nearest_code(params, static_cast<float>(w[at(r, c)]), scale), scale);
      out[at(r, c)] = value;
      const double error = (w[at(r, c)] - static_cast<double>(value)) / inverse[at(c, c)];
      for (std::int64_t j = i; j < n; ++j) {
        const std::int64_t other = order[static_cast<std::size_t>(j)];
        w[at(r, other)] -= error * inverse[at(c, other)];
      }
    }
    const double pivot = inverse[at(c, c)];
    Matrix row(static_cast<std::size_t>(n));
    for (std::int64_t j = 0; j < n; ++j) row[static_cast<std::size_t>(j)] = inverse[at(c, j)];
    for (std::int64_t r = 0; r < n; ++r) {
      const double factor = row[static_cast<std::size_t>(r)] / pivot;
      for (std::int64_t j = 0; j < n; ++j) inverse[at(r, j)] -= factor * row[static_cast<std::size_t>(j)];
    }
  }
  return out;
}

class Published : public ::testing::TestWithParam<std::tuple<const char*, bool>> {};

TEST_P(Published, LayerErrorIsThatOfThePaper) {
  const auto& [encoding, act_order] = GetParam();
  const Problem p = make_problem(24, 320, 7);
  Job job = job_of(p, encoding, act_order);
  job.options.effort = 0;
  const double reference = layer_error(p, published(p, job));
  const double ours = layer_error(p, run(p, job, make_affine(job), 10));
  const double nearest = layer_error(p, run(p, job, rtn::make_affine(job), 10));
  RecordProperty("of_nearest", std::to_string(ours / nearest));
  EXPECT_NEAR(ours / reference, 1, 0.005);
  EXPECT_LT(ours, 0.75 * nearest);
}

// Searched grids, refitted scales and moved codes against the sweep alone.
TEST_P(Published, PassesLoseLess) {
  const auto& [encoding, act_order] = GetParam();
  const Problem p = make_problem(24, 320, 8);
  Job job = job_of(p, encoding, act_order);
  double before = 0;
  for (const int effort : {0, 1, 6}) {
    job.options.effort = effort;
    const double error = layer_error(p, run(p, job, make_affine(job), 24));
    EXPECT_TRUE(effort == 0 || error < 0.99 * before) << error << " after " << before;
    before = error;
  }
}

// What the passes keep serves the inputs that were held out, too.
TEST_P(Published, PassesServeTheInputsThatWereHeldOut) {
  const auto& [encoding, act_order] = GetParam();
  const Problem p = make_problem(16, 320, 9);
  Problem held_out = p;
  held_out.gram = gram_of_inputs(320, 10);
  Job job = job_of(p, encoding, act_order);
  job.statistics.held_out = held_out.gram;
  job.options.effort = 0;
  const double published_error = layer_error(held_out, run(p, job, make_affine(job), 16));
  job.options.effort = 3;
  EXPECT_LT(layer_error(held_out, run(p, job, make_affine(job), 16)), published_error);
}

INSTANTIATE_TEST_SUITE_P(Encodings, Published,
                         ::testing::Combine(::testing::Values("int4-g128-asym", "int4-g64", "int3-g128-asym",
                                                              "int2-g128-asym", "int4-channel", "int8-channel-asym"),
                                            ::testing::Bool()));

class Blocks : public ::testing::TestWithParam<const char*> {};

// Against the same search of scales without the sweep.
TEST_P(Blocks, LoseLessThanTheSearchAlone) {
  const Problem p = make_problem(20, 512, 11);
  Job job = job_of(p, GetParam());
  const double ours = layer_error(p, run(p, job, make_block(job), 7));
  std::vector<float> importance;
  for (std::int64_t c = 0; c < p.cols; ++c) importance.push_back(p.gram[static_cast<std::size_t>(c * p.cols + c)]);
  Job plain = job;
  plain.statistics = {};
  plain.statistics.importance = importance;
  const double searched = layer_error(p, run(p, plain, get("search").make(plain), 7));
  RecordProperty("of_search", std::to_string(ours / searched));
  job.options.effort = 0;
  const double sweep = layer_error(p, run(p, job, make_block(job), 7));
  RecordProperty("of_sweep", std::to_string(ours / sweep));
  EXPECT_LT(ours, sweep);
  EXPECT_LT(ours, 0.7 * searched);
}

INSTANTIATE_TEST_SUITE_P(Types, Blocks,
                         ::testing::Values("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q4_0", "q4_1", "q5_0", "q5_1",
                                           "q8_0", "iq4_nl", "iq4_xs"));

// Rounds that go too far for inputs that were held out are taken back.
TEST_P(Blocks, KeepWhatServesTheInputsThatWereHeldOut) {
  Problem p = make_problem(16, 512, 12);
  const std::vector<float> other = gram_of_inputs(512, 13);
  Job job = job_of(p, GetParam());
  job.options.effort = 6;
  Problem held_out = p;
  held_out.gram = other;
  // What follows the rounds is small.
  const auto free = run(p, job, make_block(job), 16);
  job.statistics.held_out = other;
  const auto gated = run(p, job, make_block(job), 16);
  EXPECT_LE(layer_error(held_out, gated), 1.003 * layer_error(held_out, free));
  job.statistics.held_out = p.gram;  // nothing to take back
  EXPECT_EQ(run(p, job, make_block(job), 16), free);
}

TEST_P(Blocks, AreTheSameForEveryIsa) {
  const Problem p = make_problem(9, 512, 14);
  Job job = job_of(p, GetParam());
  job.options.isa = Isa::kScalar;
  const auto scalar = run(p, job, make_block(job), 9);
  job.options.isa = machine_isa();
  EXPECT_EQ(run(p, job, make_block(job), 9), scalar);
}

TEST_P(Blocks, LoseLessTheMorePassesThereAre) {
  const Problem p = make_problem(8, 512, 15);
  Job job = job_of(p, GetParam());
  double before = 0;
  for (const int effort : {0, 1, 4}) {
    job.options.effort = effort;
    const double error = layer_error(p, run(p, job, make_block(job), 8));
    EXPECT_TRUE(effort == 0 || error < before) << error << " after " << before;
    before = error;
  }
}

TEST(Gptq, RowsDoNotDependOnTheCallThatHoldsThem) {
  const Problem p = make_problem(21, 200, 3);
  const Job job = job_of(p, "int4-g32");
  const auto whole = run(p, job, make_affine(job), 21), single = run(p, job, make_affine(job), 1);
  EXPECT_LT(std::abs(layer_error(p, whole) / layer_error(p, single) - 1), 1e-3);
}

TEST(Gptq, PullBackStaysNearerToTheWeights) {
  const Problem p = make_problem(16, 256, 6);
  Job job = job_of(p, "int3-g128");
  job.options.effort = 0;
  const auto distance = [&] {
    const auto values = run(p, job, make_affine(job), 16);
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) sum += std::pow(static_cast<double>(values[i] - p.weights[i]), 2);
    return sum;
  };
  const double free = distance();
  job.options.pull_back = 0.1;
  EXPECT_LT(distance(), 0.95 * free);
}

TEST(Gptq, OneScaleOfTheTensorFollowsTheRangeRule) {
  Problem p = make_problem(16, 256, 6);
  p.weights[7] = 0.4f;  // an outlier that a searched range cuts
  Job job = job_of(p, "int3-tensor");
  job.options.effort = 0;
  const double minmax = layer_error(p, run(p, job, make_affine(job), 16));
  job.options.range = RangeRule::kMse;
  EXPECT_LT(layer_error(p, run(p, job, make_affine(job), 16)), minmax);
}

TEST(Gptq, InputsThatAreNeverThereCostNothing) {
  Problem p = make_problem(8, 96, 5);
  for (const std::int64_t dead : {0, 31, 95}) {
    for (std::int64_t i = 0; i < p.cols; ++i) {
      p.gram[static_cast<std::size_t>(dead * p.cols + i)] = p.gram[static_cast<std::size_t>(i * p.cols + dead)] = 0;
    }
  }
  const Job job = job_of(p, "int4-g32", true);
  const auto values = run(p, job, make_affine(job), 8);
  for (std::int64_t r = 0; r < p.rows; ++r) {
    for (const std::int64_t dead : {0, 31, 95}) EXPECT_EQ(values[static_cast<std::size_t>(r * p.cols + dead)], 0);
  }
  EXPECT_LT(layer_error(p, values), layer_error(p, run(p, job, rtn::make_affine(job), 8)));
}

TEST(Gptq, DampingGrowsUntilThereIsAFactor) {
  Problem p = make_problem(4, 64, 9);
  std::fill(p.gram.begin(), p.gram.end(), 3.0f);  // one input, seen 64 times
  Job job = job_of(p, "int4-g32");
  job.options.damping = 0;
  EXPECT_GT(make_hessian(job).damping, 0);
  for (const float value : run(p, job, make_affine(job), 4)) EXPECT_TRUE(std::isfinite(value));
}

TEST(Gptq, RefusesWhatIsNoGram) {
  Problem p = make_problem(4, 32, 2);
  const auto refusal = [&](std::span<const float> gram) -> std::string {
    Job job = job_of(p, "int4-g32");
    job.statistics.gram = gram;
    try {
      make_hessian(job);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_NE(refusal({}).find("needs what calibration knows"), std::string::npos);
  EXPECT_NE(refusal(std::span(p.gram).first(31)).find("31 products"), std::string::npos);
  std::vector<float> bad = p.gram;
  bad[33] = -1;
  EXPECT_NE(refusal(bad).find("of inputs 1 and 1 is -1"), std::string::npos);
  bad[33] = std::nanf("");
  EXPECT_NE(refusal(bad).find("is nan"), std::string::npos);
}

}  // namespace
}  // namespace nibble::method::gptq
