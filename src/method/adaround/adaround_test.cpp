#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "method/problem.h"

namespace nibble::method {
namespace {

double error_of(const Problem& p, const Job& job, std::string_view method) {
  return layer_error(p, run(p, job, get(method).make(job), 8));
}

class AdaRound : public testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Types, AdaRound,
                         testing::Values("int4-g128", "int3-g64-asym", "int2-g128", "int4-channel", "int3-tensor",
                                         "int4-g32-f16"));

// Against nearest rounding on the same searched grid.
TEST_P(AdaRound, LosesLessThanNearest) {
  const Problem p = make_problem(16, 256, 21);
  Job job = job_of(p, GetParam());
  job.options.range = RangeRule::kMse;
  const double nearest = error_of(p, job, "rtn"), learned = error_of(p, job, "adaround");
  RecordProperty("of_nearest", std::to_string(learned / nearest));
  EXPECT_LT(learned, 0.6 * nearest);
}

TEST_P(AdaRound, EveryWeightGoesDownOrUp) {
  const Problem p = make_problem(8, 256, 22);
  Job job = job_of(p, GetParam());
  const Tensor tensor = encode(p, job, *get("adaround").make(job), 8);
  const auto values = decode(tensor);
  const encoding::AffineParams& params = job.target->affine;
  const Part* zeros = tensor.view().find(PartRole::kZeros);
  for (std::int64_t i = 0; i < p.rows * p.cols; ++i) {
    const std::int64_t group = params.granularity == encoding::Granularity::kTensor
                                   ? 0
                                   : i / p.cols * encoding::groups_per_row(params, p.cols) +
                                         i % p.cols / encoding::group_columns(params, p.cols);
    const auto at = encoding::load_scale_zero(params, tensor.view().part(PartRole::kScales).bytes.data(),
                                              zeros != nullptr ? zeros->bytes.data() : nullptr, group);
    const auto range = encoding::code_range(params);
    const auto k = static_cast<std::size_t>(i);
    const float held =
        std::clamp(p.weights[k], encoding::decode_code(range.min, at), encoding::decode_code(range.max, at));
    EXPECT_LT(std::fabs(values[k] - held), 1.001f * at.scale);
  }
}

TEST(AdaRounding, MoreStepsLoseLess) {
  const Problem p = make_problem(8, 256, 23);
  Job job = job_of(p, "int3-g128");
  double before = 0;
  for (const int effort : {0, 1, 4}) {  // 0: nearest
    job.options.effort = effort;
    const double error = error_of(p, job, "adaround");
    EXPECT_TRUE(effort == 0 || error < 0.99 * before) << error << " after " << before;
    before = error;
  }
}

TEST(AdaRounding, NeedsTheGram) {
  const Problem p = make_problem(2, 64, 24);
  Job job = job_of(p, "int4-g32");
  job.statistics.gram = {};
  try {
    error_of(p, job, "adaround");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("adaround needs what calibration knows"));
  }
}

}  // namespace
}  // namespace nibble::method
