// Small floats: scales as they follow from magnitudes, searched ones, the rounding rules, matrices in a stack.
#include "encoding/scaled.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "encoding/float_code.h"
#include "method/problem.h"

namespace nibble::method {
namespace {

const char* const kTypes[] = {
    "fp8-tensor", "fp8-channel", "fp8-channel-e5m2", "fp8-block128x128", "fp8-block16x48-bf16", "mxfp8", "mxfp8-e5m2",
    "mxfp4-hf",   "mxfp4",       "nvfp4-hf"};

// Sum of importance * error^2.
double weighted_error(const Problem& p, const Job& job, const std::vector<float>& values) {
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double error = static_cast<double>(p.weights[i]) - static_cast<double>(values[i]);
    const auto col = i % static_cast<std::size_t>(p.cols);
    sum +=
        (job.statistics.importance.empty() ? 1.0 : static_cast<double>(job.statistics.importance[col])) * error * error;
  }
  return sum;
}

TEST(ScaledRtn, ScalesEachTileByItsLargestMagnitude) {
  const Problem p = make_problem(40, 96, 1);
  for (const char* type : {"fp8-tensor", "fp8-channel", "fp8-block16x48", "fp8-block16x48-e8m0", "mxfp4-hf", "mxfp8"}) {
    const Job job = job_of(p, type);
    const encoding::ScaledParams& params = job.target->scaled;
    const Tensor tensor = encode(p, job, *get("rtn").make(job), 8);
    const Shape tiles = encoding::scaled_scales_shape(params, job.shape);
    const std::int64_t height = params.tile_rows > 0 ? params.tile_rows : p.rows;
    const std::int64_t width = params.tile_cols > 0 ? params.tile_cols : p.cols;
    std::vector<float> magnitudes(static_cast<std::size_t>(tiles.elements()));
    for (std::int64_t r = 0; r < p.rows; ++r) {
      for (std::int64_t c = 0; c < p.cols; ++c) {
        float& magnitude = magnitudes[static_cast<std::size_t>(r / height * tiles[2] + c / width)];
        magnitude = std::max(magnitude, std::fabs(p.weights[static_cast<std::size_t>(r * p.cols + c)]));
      }
    }
    const auto scales = tensor.view().part(PartRole::kScales).bytes;
    for (std::size_t i = 0; i < magnitudes.size(); ++i) {
      EXPECT_EQ(encoding::load_float_scale(params.scale_dtype, scales.data(), static_cast<std::int64_t>(i)),
                encoding::scale_of_magnitude(params, magnitudes[i], 1))
          << type << " " << i;
    }
  }
}

// The nearest code of each weight: no other code of its tile is nearer.
TEST(ScaledRtn, TakesTheNearestCode) {
  const Problem p = make_problem(5, 64, 2);
  for (const char* type : {"fp8-channel", "fp8-channel-e5m2", "mxfp4-hf", "nvfp4-hf", "mxfp8"}) {
    const Job job = job_of(p, type);
    const Tensor tensor = encode(p, job, *get("rtn").make(job), 8);
    const std::vector<float> values = decode(tensor);
    const encoding::FloatForm& form = encoding::float_form(job.target->scaled.code);
    const std::int64_t width = job.target->scaled.tile_cols > 0 ? job.target->scaled.tile_cols : p.cols;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i) / p.cols, col = static_cast<std::int64_t>(i) % p.cols;
      const encoding::ScaledRow at = encoding::scaled_row(tensor.view(), row);
      const float scale =
          encoding::load_float_scale(job.target->scaled.scale_dtype, at.scales, col / width) / at.global;
      for (int code = 0; code <= form.largest_code; ++code) {
        const float other = std::copysign(form.values[static_cast<std::size_t>(code)] * scale, p.weights[i]);
        EXPECT_LE(std::fabs(values[i] - p.weights[i]), std::fabs(other - p.weights[i]) + 1e-9f);
      }
    }
  }
}

TEST(ScaledSearch, LosesLess) {
  const Problem p = make_problem(48, 512, 3);
  std::vector<float> importance;
  for (std::int64_t c = 0; c < p.cols; ++c) importance.push_back(c % 11 == 0 ? 20.0f : 0.5f);
  for (const char* type : kTypes) {
    for (const bool weighted : {false, true}) {
      Job job = job_of(p, type);
      if (weighted) job.statistics.importance = importance;
      const double nearest = weighted_error(p, job, run(p, job, get("rtn").make(job), 8));
      const double searched = weighted_error(p, job, run(p, job, get("search").make(job), 8));
      EXPECT_LT(searched, nearest) << type << " " << weighted;
      job.options.range = RangeRule::kMse;
      if (std::string_view(type) == "mxfp4") continue;  // of rtn the reference rounding
      EXPECT_EQ(weighted_error(p, job, run(p, job, get("rtn").make(job), 8)), searched) << type;
    }
  }
}

TEST(ScaledSearch, IsTheDefault) {
  for (const char* type : kTypes) EXPECT_EQ(default_for(encoding::get(type)).name, "search") << type;
}

TEST(ScaledRtn, RoundsByTheRule) {
  const Problem p = make_problem(7, 64, 4);
  for (const char* type : {"fp8-channel", "fp8-channel-e5m2", "mxfp4-hf", "fp8-tensor"}) {
    const auto values_of = [&](Rounding rounding, std::uint64_t seed = 0) {
      Job job = job_of(p, type);
      job.options.rounding = rounding;
      job.options.seed = seed;
      return run(p, job, get("rtn").make(job), 8);
    };
    const auto nearest = values_of(Rounding::kNearest), floor = values_of(Rounding::kFloor),
               ceil = values_of(Rounding::kCeil), drawn = values_of(Rounding::kStochastic, 1);
    int ups = 0;
    for (std::size_t i = 0; i < nearest.size(); ++i) {
      const float w = p.weights[i];
      // What is above the largest code saturates: only powers of two as scales leave it there.
      if (std::string_view(type) != "mxfp4-hf") {
        EXPECT_LE(floor[i], w * (w < 0 ? 0.999999f : 1.000001f));
        EXPECT_GE(ceil[i], w * (w < 0 ? 1.000001f : 0.999999f));
      }
      EXPECT_LE(floor[i], ceil[i]);
      EXPECT_TRUE(nearest[i] == floor[i] || nearest[i] == ceil[i]);
      EXPECT_TRUE(drawn[i] == floor[i] || drawn[i] == ceil[i]);
      ups += drawn[i] == ceil[i] ? 1 : 0;
    }
    EXPECT_GT(ups, 100);
    EXPECT_LT(ups, 348);
    EXPECT_NE(drawn, values_of(Rounding::kStochastic, 2));
  }
}

// Each matrix of a stack has scales of its own, also where tiles do not divide it.
TEST(ScaledRtn, MakesStacksAsTheirMatrices) {
  const Problem p = make_problem(3 * 20, 64, 5);
  for (const char* type : {"fp8-tensor", "fp8-channel", "fp8-block16x48", "fp8-block10x10", "nvfp4-hf", "mxfp4-hf"}) {
    for (const char* method : {"rtn", "search"}) {
      Job job = job_of(p, type);
      job.shape = {3, 20, 64};
      const auto whole = run(p, job, get(method).make(job), 8);
      for (std::size_t m = 0; m < 3; ++m) {
        Problem part = p;
        part.rows = 20;
        part.weights.assign(p.weights.begin() + static_cast<std::ptrdiff_t>(m * 20 * 64),
                            p.weights.begin() + static_cast<std::ptrdiff_t>((m + 1) * 20 * 64));
        const Job alone = job_of(part, type);
        const auto values = run(part, alone, get(method).make(alone), 8);
        EXPECT_TRUE(std::equal(values.begin(), values.end(), whole.begin() + static_cast<std::ptrdiff_t>(m * 20 * 64)))
            << type << " " << method << " " << m;
      }
    }
  }
}

}  // namespace
}  // namespace nibble::method
