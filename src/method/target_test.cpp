#include "method/target.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "method/problem.h"

namespace nibble::method {
namespace {

// Inputs of a layer in the unquantized model, and the same tokens behind quantized layers.
struct Inputs {
  std::int64_t n, cols;
  std::vector<float> before, after;

  std::vector<float> products(const std::vector<float>& a, const std::vector<float>& b) const {
    std::vector<float> out(static_cast<std::size_t>(cols * cols));
    ThreadPool pool(1);
    CancelToken cancel;
    NullProgress progress;
    ExecContext context{pool, cancel, progress};
    linalg::add_cross(context, n, cols, cols, a.data(), b.data(), out.data());
    return out;
  }
};

// Columns follow each other; what quantization did to them depends on their neighbours (`real`) or is noise.
Inputs make_inputs(std::int64_t n, std::int64_t cols, std::uint64_t seed, float real, float noise) {
  Inputs x{n, cols, {}, {}};
  for (std::int64_t t = 0; t < n; ++t) {
    float carried = 0;
    for (std::int64_t c = 0; c < cols; ++c) {
      const auto i = static_cast<std::uint64_t>(t * cols + c);
      const float last = carried;
      carried = 0.7f * carried + random_normal(seed, 1, i);
      x.before.push_back(carried);
      x.after.push_back(carried * (1 - real) + real * last + noise * random_normal(seed, 2, i));
    }
  }
  return x;
}

// Sum over tokens and rows of (v x̂ - w x)².
double output_error(const Problem& p, const std::vector<float>& values, const Inputs& x) {
  double sum = 0;
  for (std::int64_t t = 0; t < x.n; ++t) {
    for (std::int64_t r = 0; r < p.rows; ++r) {
      double difference = 0;
      for (std::int64_t c = 0; c < p.cols; ++c) {
        const auto w = static_cast<std::size_t>(r * p.cols + c), i = static_cast<std::size_t>(t * p.cols + c);
        difference += static_cast<double>(values[w]) * static_cast<double>(x.after[i]) -
                      static_cast<double>(p.weights[w]) * static_cast<double>(x.before[i]);
      }
      sum += difference * difference;
    }
  }
  return sum;
}

struct Case {
  Problem p;
  Inputs seen, unseen;
  std::vector<float> gram, cross, held_out, held_out_cross;
  Job job;

  Case(float real, float noise, std::int64_t tokens = 600, std::int64_t rows = 12)
      : p{rows, 96, {}, {}},
        seen(make_inputs(tokens, 96, 1, real, noise)),
        unseen(make_inputs(500, 96, 2, real, noise)) {
    for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(rows * 96); ++i)
      p.weights.push_back(0.05f * random_normal(3, 0, i));
    p.gram = gram = seen.products(seen.after, seen.after);
    cross = seen.products(seen.before, seen.after);
    held_out = unseen.products(unseen.after, unseen.after);
    held_out_cross = unseen.products(unseen.before, unseen.after);
    job = job_of(p, "int4-g32");
    job.statistics.cross = cross;
  }
  Target prepared(int threads = 2) const {
    ThreadPool pool(threads);
    CancelToken cancel;
    NullProgress progress;
    ExecContext context{pool, cancel, progress};
    Target target;
    target.prepare(context, job, ViewRows(p));
    return target;
  }
  std::vector<float> corrected() const {
    std::vector<float> values = p.weights;
    prepared().correct(values.data(), 0, p.rows);
    return values;
  }
};

class TargetOf : public ::testing::TestWithParam<std::int64_t> {};  // so many rows: fewer and more than columns
INSTANTIATE_TEST_SUITE_P(Rows, TargetOf, ::testing::Values(12, 130));

TEST_P(TargetOf, WholeWayIsTheLeastError) {
  Case c(0.1f, 0.05f, 600, GetParam());
  c.job.options.correction = 1;
  c.job.options.damping = 0;
  const auto values = c.corrected();
  const double least = output_error(c.p, values, c.seen);
  EXPECT_LT(least, 0.5 * output_error(c.p, c.p.weights, c.seen));
  // The normal equations hold: v Ĥ = w C.
  for (std::int64_t r = 0; r < c.p.rows; ++r) {
    for (std::int64_t k = 0; k < c.p.cols; ++k) {
      double left = 0, right = 0, scale = 0;
      for (std::int64_t i = 0; i < c.p.cols; ++i) {
        const auto w = static_cast<std::size_t>(r * c.p.cols + i), at = static_cast<std::size_t>(i * c.p.cols + k);
        left += static_cast<double>(values[w]) * static_cast<double>(c.gram[at]);
        right += static_cast<double>(c.p.weights[w]) * static_cast<double>(c.cross[at]);
        scale += std::abs(static_cast<double>(values[w]) * static_cast<double>(c.gram[at]));
      }
      EXPECT_NEAR(left, right, 2e-5 * scale);
    }
  }
}

TEST(Target, NothingToCorrect) {
  Case c(0.1f, 0.05f);
  c.job.statistics.cross = {};
  EXPECT_EQ(c.corrected(), c.p.weights);
  c.job.statistics.cross = c.gram;  // x̂ = x
  const auto same = c.corrected();
  for (std::size_t i = 0; i < same.size(); ++i) EXPECT_NEAR(same[i], c.p.weights[i], 1e-6f);
}

TEST(Target, HeldOutInputsChooseTheShare) {
  Case real(0.1f, 0.02f);
  real.job.statistics.held_out = real.held_out;
  real.job.statistics.held_out_cross = real.held_out_cross;
  EXPECT_EQ(real.prepared().share(), 0.5);
  EXPECT_LT(output_error(real.p, real.corrected(), real.unseen), output_error(real.p, real.p.weights, real.unseen));
  real.job.options.correction = 1;
  EXPECT_EQ(real.prepared(1).share(), 1);
  // Ninety tokens of noise tell nothing of others.
  Case few(0.0f, 0.1f, 90);
  few.job.statistics.held_out = few.held_out;
  few.job.statistics.held_out_cross = few.held_out_cross;
  few.job.options.damping = 1e-4;
  EXPECT_EQ(few.prepared().share(), 0);
}

TEST(Target, GptqFollowsIt) {
  for (const std::string type : {"int4-g32", "q4_0"}) {
    Case c(0.1f, 0.02f);
    c.job.target = &encoding::get(type);
    c.job.options.correction = 0;
    const double plain = output_error(c.p, run(c.p, c.job, get("gptq").make(c.job), 12), c.unseen);
    c.job.options.correction = 0.5;
    EXPECT_LT(output_error(c.p, run(c.p, c.job, get("gptq").make(c.job), 12), c.unseen), 0.7 * plain) << type;
  }
}

TEST(Target, RefusesWhatDoesNotFit) {
  Case c(0.1f, 0.02f);
  const auto refusal = [&]() -> std::string {
    try {
      c.prepared();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  c.job.statistics.cross = std::span(c.cross).first(7);
  EXPECT_THAT(refusal(), testing::HasSubstr("7 products of the inputs before and after do not go with 96 columns"));
  c.cross[11] = std::nanf("");
  c.job.statistics.cross = c.cross;
  EXPECT_THAT(refusal(), testing::HasSubstr("not all finite"));
}

}  // namespace
}  // namespace nibble::method
