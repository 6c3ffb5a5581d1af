// What every method of the table keeps to, whatever it works by.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "method/problem.h"

namespace nibble::method {
namespace {

const std::vector<std::string> kTypes = {"q4_0",
                                         "q4_1",
                                         "q5_0",
                                         "q5_1",
                                         "q8_0",
                                         "q2_k",
                                         "q3_k",
                                         "q4_k",
                                         "q5_k",
                                         "q6_k",
                                         "iq4_nl",
                                         "iq4_xs",
                                         "int8-tensor",
                                         "int4-g128",
                                         "int3-g40-asym-f16",
                                         "int2-g64-restricted",
                                         "int4-channel-asym",
                                         "nf4",
                                         "nf4-dq-b32",
                                         "fp4",
                                         "fp4-dq-b128",
                                         "kmeans2-channel",
                                         "kmeans3-g48",
                                         "kmeans4-g500",
                                         "kmeans4-tensor",
                                         "fp8-tensor",
                                         "fp8-channel-e5m2-bf16",
                                         "fp8-block128x128",
                                         "fp8-block2x48-f16",
                                         "mxfp8",
                                         "mxfp4-hf",
                                         "mxfp4",
                                         "nvfp4-hf"};

// Of every method: name and type.
class EveryMethod : public testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  const Method& method() const { return get(std::get<0>(GetParam())); }
  const std::string& type() const { return std::get<1>(GetParam()); }
  // Odd where the type leaves a choice.
  std::int64_t cols() const { return encoding::get(type()).block_elements > 1 ? 512 : 203; }
  // All statistics there are; each method takes what it works by.
  static Job job_with(const Problem& p, const std::string& type, std::vector<float>& importance) {
    Job job = job_of(p, type);
    importance.clear();
    for (std::int64_t c = 0; c < p.cols; ++c) importance.push_back(p.gram[static_cast<std::size_t>(c * p.cols + c)]);
    job.statistics.importance = importance;
    job.options.effort = 1;
    return job;
  }
  std::vector<float> values_of(const Problem& p, const Method& by, std::int64_t step = 8) const {
    std::vector<float> importance;
    const Job job = job_with(p, type(), importance);
    return run(p, job, by.make(job), step);
  }
};

// Each with the types it makes.
std::vector<std::tuple<std::string, std::string>> pairs() {
  std::vector<std::tuple<std::string, std::string>> out;
  for (const Method* method : all_entries()) {
    for (const std::string& type : kTypes) {
      if (method->supports(encoding::get(type))) out.emplace_back(method->name, type);
    }
  }
  return out;
}

std::string test_name(const testing::TestParamInfo<std::tuple<std::string, std::string>>& info) {
  std::string name = std::get<0>(info.param) + "_" + std::get<1>(info.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, EveryMethod, testing::ValuesIn(pairs()), test_name);

std::vector<std::byte> bytes_of(const Tensor& tensor) {
  std::vector<std::byte> all;
  for (int i = 0; i < tensor.view().n_parts; ++i) {
    const auto part = tensor.view().parts[static_cast<std::size_t>(i)].bytes;
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

TEST_P(EveryMethod, GivesTheSameBytesForEveryThreadCount) {
  const Problem p = make_problem(21, cols(), 3);
  std::vector<float> importance;
  const Job job = job_with(p, type(), importance);
  const auto expected = bytes_of(encode(p, job, *method().make(job), 4));
  for (const int threads : {1, 2, 3}) EXPECT_EQ(bytes_of(encode(p, job, *method().make(job), 4, threads)), expected);
}

// The objective is the error of the layer; of `search` and `kmeans`, which have their own, it is tested in
// method_test.cpp and kmeans_test.cpp.
TEST_P(EveryMethod, LosesNoMoreThanNearest) {
  if (method().name == "search" || method().name == "kmeans") return;
  for (const std::int64_t rows : {std::int64_t{1}, std::int64_t{13}}) {
    for (std::uint64_t seed = 0; seed < 3; ++seed) {
      const Problem p = make_problem(rows, cols(), seed);
      EXPECT_LE(layer_error(p, values_of(p, method())), layer_error(p, values_of(p, get("rtn"))));
    }
  }
}

TEST_P(EveryMethod, HandlesRowsOfOneNumber) {
  Problem p = make_problem(5, cols(), 4);
  for (std::int64_t c = 0; c < p.cols; ++c) {
    const float values[] = {0.0f, 0.25f, -0.25f, c == 100 ? 1.0f : 0.0f, c % 2 == 0 ? 1.0f : -1.0f};
    for (std::int64_t r = 0; r < p.rows; ++r) p.weights[static_cast<std::size_t>(r * p.cols + c)] = values[r];
  }
  const auto values = values_of(p, method());
  const double part = encoding::get(type()).family == encoding::Family::kAffine ? 0.5 : 0.1;
  for (std::int64_t c = 0; c < p.cols; ++c) EXPECT_EQ(values[static_cast<std::size_t>(c)], 0.0f);
  EXPECT_LT(layer_error(p, values), part * layer_error(p, std::vector<float>(values.size())));
}

TEST_P(EveryMethod, NamesTheWeightThatIsNotFinite) {
  Problem p = make_problem(5, cols(), 5);
  p.weights[static_cast<std::size_t>(3 * p.cols + 17)] = std::numeric_limits<float>::quiet_NaN();
  try {
    values_of(p, method());
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("tensor 'w', row 3, column 17: the weight is NaN"));
  }
}

}  // namespace
}  // namespace nibble::method
