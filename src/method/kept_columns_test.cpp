#include "method/kept_columns.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "encoding/affine.h"
#include "method/problem.h"

namespace nibble::method {
namespace {

using ::testing::ElementsAre;

constexpr std::int64_t kRows = 20, kCols = 96;

Tensor keep(const Problem& p, const std::string& method, const Job& job, std::span<const std::int32_t> columns) {
  ThreadPool pool(2);
  CancelToken cancel;
  NullProgress progress;
  ExecContext context{pool, cancel, progress};
  Tensor tensor = encoding::allocate(*job.target, job.shape);
  quantize_keeping(context, get(method), job, ViewRows(p), columns, tensor);
  encoding::validate(tensor.view());
  return tensor;
}

TEST(KeptColumns, AreThoseWithTheLargestInputs) {
  const std::vector<float> inputs = {1, -9, 2, 0, 5, 1, 0, -6, 3, 0, 0, 7};
  EXPECT_THAT(largest_columns(inputs, 4, 2), ElementsAre(1, 3));
  EXPECT_THAT(largest_columns(inputs, 4, 0), ElementsAre());
  EXPECT_THAT(largest_columns(std::vector<float>(8), 4, 2), ElementsAre(0, 1));  // equal ones in order
}

// With outliers in the weights of two columns: those are exact, and the others have the scales that they would have
// alone.
TEST(KeptColumns, LeaveTheOthersTheirScales) {
  Problem p = make_problem(kRows, kCols, 3);
  for (std::int64_t row = 0; row < kRows; ++row) p.weights[static_cast<std::size_t>(row * kCols + 40)] = 2.0f;
  const std::int32_t columns[] = {5, 40};
  for (const char* method : {"rtn", "gptq"}) {
    for (const char* type : {"int8-channel", "int4-g32-asym"}) {
      std::string name = type;
      name.insert(name.find('-', 5) == std::string::npos ? name.size() : name.find('-', 5), "-kept2");
      const Tensor tensor = keep(p, method, job_of(p, name), columns);
      Problem zeroed = p;
      for (std::int64_t i = 0; i < kRows * kCols; ++i) {
        if (i % kCols == 5 || i % kCols == 40) zeroed.weights[static_cast<std::size_t>(i)] = 0;
      }
      const float widest = *std::ranges::max_element(zeroed.weights, {}, [](float w) { return std::fabs(w); });
      const float step = 2 * std::fabs(widest) / (name.starts_with("int8") ? 255.0f : 15.0f);
      std::vector<float> decoded(p.weights.size());
      encoding::decode_rows(tensor.view(), 0, kRows, decoded.data());
      for (std::size_t i = 0; i < decoded.size(); ++i) {
        const std::size_t c = i % kCols;
        if (c == 5 || c == 40) {
          EXPECT_NEAR(decoded[i], p.weights[i], std::fabs(p.weights[i]) / 2048) << name << c;
        } else {
          EXPECT_NEAR(decoded[i], p.weights[i], 4 * step) << method << name << c;
        }
      }
    }
  }
}

// gptq does not make up for errors by what is kept, nor in it.
TEST(KeptColumns, TakeNoPartInTheSolution) {
  const Problem p = make_problem(kRows, kCols, 3);
  const std::int32_t columns[] = {0, 17, 95};
  const Tensor first = keep(p, "gptq", job_of(p, "int4-channel-kept3"), columns);
  Problem other = p;
  for (std::int64_t row = 0; row < kRows; ++row) {
    for (const std::int32_t c : columns) other.weights[static_cast<std::size_t>(row * kCols + c)] = 0.7f;
  }
  const Tensor second = keep(other, "gptq", job_of(p, "int4-channel-kept3"), columns);
  EXPECT_TRUE(std::ranges::equal(first.view().data(), second.view().data()));
}

}  // namespace
}  // namespace nibble::method
