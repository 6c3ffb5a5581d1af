// What is trained is what is packed: values on the tape against the decoded tensor, for every kind of encoding.
#include "tune/rounded_tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "method/quantize_tensor.h"
#include "train/nodes.h"

namespace nibble::tune {
namespace {

using ::testing::HasSubstr;

constexpr std::int64_t kRows = 5;

std::vector<float> decoded(const TensorView& view) {
  std::vector<float> out(static_cast<std::size_t>(view.shape.elements()));
  encoding::validate(view);
  encoding::decode_rows(view, 0, view.shape.rows(), out.data());
  return out;
}

// Greatest difference over the greatest value.
double apart(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0, largest = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  EXPECT_EQ(a.size(), b.size());
  EXPECT_GT(largest, 0);
  return most / largest;
}

// Every number of a parameter, if there is one, changed by change(number, normal random number).
template <typename Change>
void alter(train::Parameter* parameter, std::uint64_t stream, Change&& change) {
  for (std::int64_t i = 0; parameter != nullptr && i < parameter->size(); ++i) {
    float& value = parameter->values()[i];
    value = change(value, random_normal(21, stream, static_cast<std::uint64_t>(i)));
  }
}

class RoundedTensorTest : public ::testing::TestWithParam<const char*> {
 protected:
  RoundedTensorTest() : encoding_(encoding::get(GetParam())) {
    cols_ = encoding_.family == encoding::Family::kBlock ? 512 : 200;
    for (std::int64_t i = 0; i < kRows * cols_; ++i)
      weights_.push_back(0.05f * random_normal(20, 0, static_cast<std::uint64_t>(i)));
    // A group without weights.
    for (std::int64_t i = 0; i < std::min<std::int64_t>(cols_, 256); ++i) weights_[static_cast<std::size_t>(i)] = 0;
    method::Job job;
    job.tensor = "w";
    job.target = &encoding_;
    job.shape = {kRows, cols_};
    job.options.isa = best_isa();
    start_ = method::quantize(*context_, method::get("rtn"), job, weights_);
  }

  RoundedTensor make(std::vector<float> weights, const Trained& trained) const {
    return {"w", start_.view(), std::move(weights), trained};
  }
  std::vector<float> values(RoundedTensor& tensor) {
    train::Tape<float> tape(*context_, best_isa());
    const train::Var at = tensor.values(tape);
    EXPECT_EQ(tape.rows(at), kRows);
    return {tape.value(at), tape.value(at) + tape.size(at)};
  }
  // What training does to them, and more.
  static void disturb(RoundedTensor& tensor, std::uint64_t round) {
    const auto step = static_cast<float>(tensor.mean_step());
    alter(tensor.weights(), 4 * round, [step](float w, float by) { return w + 0.7f * step * by; });
    alter(tensor.scales(), 4 * round + 1, [](float s, float by) { return s * (1 + 0.4f * by); });
    alter(tensor.zeros(), 4 * round + 2, [](float z, float by) { return z + 0.4f * by; });
    const auto gap = static_cast<float>(tensor.offset_step());
    alter(tensor.offsets(), 4 * round + 3, [gap](float o, float by) { return o + 0.4f * gap * by; });
    tensor.hold();
  }
  void expect_packs_its_values(RoundedTensor& tensor) {
    for (std::uint64_t round = 0; round < 4; ++round) {
      const Tensor packed = tensor.pack();
      EXPECT_LT(apart(values(tensor), decoded(packed.view())), 1e-6) << "after " << round << " changes";
      EXPECT_EQ(packed.view().encoding, &encoding_);
      disturb(tensor, round);
    }
  }

  const encoding::EncodingInfo& encoding_;
  OwnedExecContext context_{RunContext{.threads = 2}};
  std::int64_t cols_ = 0;
  std::vector<float> weights_;
  Tensor start_;
};

TEST_P(RoundedTensorTest, WeightsScalesAndZerosArePacked) {
  RoundedTensor tensor = make(weights_, {.weights = true, .scales = true, .zeros = true});
  expect_packs_its_values(tensor);
}

TEST_P(RoundedTensorTest, OffsetsArePacked) {
  RoundedTensor tensor = make(weights_, {.scales = true, .offsets = true});
  expect_packs_its_values(tensor);
}

TEST_P(RoundedTensorTest, CodesThatStayArePacked) {
  RoundedTensor tensor = make({}, {.scales = true, .zeros = true});
  EXPECT_EQ(decoded(tensor.pack().view()), decoded(start_.view()));
  EXPECT_LT(apart(values(tensor), decoded(start_.view())), 1e-6);
  EXPECT_EQ(tensor.weights(), nullptr);
  expect_packs_its_values(tensor);
}

// Of the numbers that were encoded, and of others.
TEST_P(RoundedTensorTest, MovedIntoTheirCellsTheyKeepTheirCodes) {
  const RoundedTensor codes = make({}, {});
  std::vector<float> others = weights_;
  for (std::size_t i = 0; i < others.size(); ++i) others[i] += 0.03f * random_normal(22, 0, i);
  for (const std::vector<float>& from : {weights_, others}) {
    const std::vector<float> moved = codes.into_cells(from);
    RoundedTensor tensor = make(moved, {.weights = true, .scales = true, .zeros = true});
    EXPECT_EQ(decoded(tensor.pack().view()), decoded(start_.view()));
    EXPECT_LT(apart(values(tensor), decoded(start_.view())), 1e-6);
    if (from != weights_) continue;
    // Those lie in their cells already, and only leave the margins.
    double distance = 0;
    for (std::size_t i = 0; i < moved.size(); ++i)
      distance += std::abs(static_cast<double>(moved[i]) - static_cast<double>(from[i]));
    EXPECT_LT(distance / static_cast<double>(moved.size()), 0.05 * codes.mean_step());
  }
}

TEST_P(RoundedTensorTest, ScalesAndZerosHaveTheirGradients) {
  RoundedTensor tensor = make({}, {.scales = true, .zeros = true});
  const bool rounded = encoding_.family == encoding::Family::kBlock || encoding_.affine.scale_dtype != Dtype::kF32;
  const std::vector<float> before = values(tensor);
  train::Tape<float> tape(*context_, best_isa());
  const train::Var at = tensor.values(tape);
  const std::vector<float> target(before.size(), 0.0f);
  tape.backward(train::squared_error(tape, at, target.data(), 0.5));  // dy = y
  double slope = 0, square = 0;
  for (std::int64_t i = 0; i < tensor.scales()->size(); ++i)
    slope += static_cast<double>(tensor.scales()->gradients()[i]);
  for (std::int64_t i = 0; encoding_.family == encoding::Family::kBlock && tensor.zeros() && i < tensor.zeros()->size();
       ++i)
    slope += static_cast<double>(tensor.zeros()->gradients()[i]);
  for (const float value : before) square += static_cast<double>(value) * static_cast<double>(value);
  // All values are proportional to all multiples together.
  EXPECT_NEAR(slope, square, (rounded ? 1e-3 : 1e-4) * square);
}

INSTANTIATE_TEST_SUITE_P(Encodings, RoundedTensorTest,
                         ::testing::Values("int2-g64-asym", "int3-g128", "int4-channel", "int8-tensor",
                                           "int8-tensor-asym", "int4-g128-f16", "int4-g64-asym-bf16", "int4-g32-awq",
                                           "int3-g48-restricted", "q2_k", "q3_k", "q4_k", "q5_k", "q4_0", "q4_1",
                                           "q5_0", "q5_1", "q8_0", "q6_k", "iq4_nl", "iq4_xs"),
                         [](const auto& name) {
                           std::string text = name.param;
                           std::ranges::replace(text, '-', '_');
                           return text;
                         });

TEST(UntrainableTest, IsRefusedByName) {
  const encoding::EncodingInfo& nf4 = encoding::get("nf4");
  EXPECT_FALSE(RoundedTensor::supports(nf4));
  EXPECT_FALSE(RoundedTensor::supports(encoding::get("int4-g32-gidx")));
  const Tensor tensor = encoding::allocate(nf4, {4, 64});
  try {
    RoundedTensor("blk.w", tensor.view(), {}, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(error.what(), ::testing::AllOf(HasSubstr("blk.w"), HasSubstr("nf4")));
  }
}

}  // namespace
}  // namespace nibble::tune
