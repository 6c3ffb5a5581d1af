// The kernels of inputs with one scale for a row: every way of rounding inputs that they take, against the decoded
// weights; all paths, tiles too, give the same bits.
#include "kernel/linear_test.h"

namespace nibble::kernel {
namespace {

constexpr std::int64_t kTokens = 45, kRows = 37;

struct Case {
  const char* inputs;
  float scale;  // of fixed inputs
  int zero;
};
constexpr Case kCases[] = {{"int8-token", 0, 0},
                           {"int8-token-asym", 0, 0},
                           {"int8-tensor", 0.01f, 0},
                           {"int8-tensor-asym", 0.02f, 37},
                           {"int8-tensor-asym", 0.02f, 0},
                           {"int8-tensor-asym", 0.02f, 255},
                           {"int4-token", 0, 0},
                           {"int5-token-asym", 0, 0},
                           {"int8-token-over2", 0, 0},
                           {"int8-tensor-over2", 0.015f, 0},
                           {"int8-token-asym-over2.5", 0, 0}};
constexpr const char* kWeights[] = {"int8-channel",   "int8-channel-asym",  "int8-tensor",        "int4-channel",
                                    "int4-g128",      "int4-g32-asym",      "int4-g96",           "int6-g64-asym-f16",
                                    "int3-g64",       "int2-g128-asym",     "int5-channel",       "int7-g2048",
                                    "int4-g128-gidx", "int8-channel-kept8", "int4-g64-kept5-asym"};

// `view`: of weights, whose kept columns are not rounded.
InputRounding rounding_of(const Case& c, const TensorView* view = nullptr) {
  InputRounding rounding = {&encoding::get_activation(c.inputs), c.scale, c.zero, {}};
  if (view != nullptr && view->find(PartRole::kOutlierColumns) != nullptr)
    rounding.kept = {view->part(PartRole::kOutlierColumns).bytes};
  return rounding;
}

// Normal inputs that lean to one side, some of them large, one row of zeros.
std::vector<float> make_inputs(std::int64_t cols) {
  std::vector<float> x(static_cast<std::size_t>(kTokens * cols));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 0.3f + random_normal(31, 0, i) * (i % 97 == 5 ? 8.0f : 1.0f);
  std::fill_n(x.begin() + 7 * cols, cols, 0.0f);
  return x;
}

std::vector<const LinearKernel*> kernels_of(const encoding::EncodingInfo& weights, const InputRounding& inputs,
                                            std::int64_t cols) {
  std::vector<const LinearKernel*> all;
  for (const LinearKernel* kernel : all_entries()) {
    const ActivationFormat& format = *kernel->activation;
    if (kernel->isa > machine_isa() || !format.name.starts_with("i8-")) continue;
    if (format.rounds(*inputs.activation) && kernel->accepts(weights, cols)) all.push_back(kernel);
  }
  return all;
}

// Against sums in double over the rounded inputs.
void expect_products(const LinearKernel& kernel, const Packed& packed, const TensorView& view, const Case& c) {
  const std::int64_t cols = view.cols();
  std::vector<float> weights(static_cast<std::size_t>(kRows * cols));
  encoding::decode_rows(view, 0, kRows, weights.data());
  std::vector<float> x = make_inputs(cols);
  const std::vector<float> out = compute(kernel, packed, x, kTokens, rounding_of(c, &view));
  for (std::int64_t t = 0; t < kTokens; ++t)
    encoding::round_inputs(rounding_of(c, &view), x.data() + t * cols, cols, x.data() + t * cols);
  for (std::int64_t i = 0; i < kTokens * kRows; ++i) {
    const float* w = weights.data() + i % kRows * cols;
    const float* a = x.data() + i / kRows * cols;
    // With a zero point sums of the whole range cancel out.
    const bool shifted = !rounding_of(c).activation->symmetric;
    const double range =
        shifted ? 128.0 * static_cast<double>(c.scale) + static_cast<double>(std::fabs(*std::ranges::max_element(
                                                             a, a + cols, {}, [](float v) { return std::fabs(v); })))
                : 0;
    double sum = 0, magnitude = 0;
    for (std::int64_t k = 0; k < cols; ++k) {
      sum += static_cast<double>(w[k]) * static_cast<double>(a[k]);
      magnitude += std::fabs(static_cast<double>(w[k])) * std::max(range, std::fabs(static_cast<double>(a[k])));
    }
    ASSERT_NEAR(out[static_cast<std::size_t>(i)], sum, 4e-6 * magnitude + 1e-30)
        << kernel.name << ", inputs " << c.inputs << ", token " << i / kRows << " row " << i % kRows;
  }
}

class RowsOf : public testing::TestWithParam<const char*> {};

TEST_P(RowsOf, ProductsAreThoseOfTheRoundedInputsOnEveryPath) {
  const encoding::EncodingInfo& info = encoding::get(GetParam());
  for (const std::int64_t cols : {96, 1152, 2304}) {
    if (info.affine.group_index && cols % info.affine.group != 0) continue;
    const Tensor tensor = make_weights(info, kRows, cols, 5);
    for (const Case& c : kCases) {
      const std::vector<const LinearKernel*> kernels = kernels_of(info, rounding_of(c), cols);
      const bool keeps = rounding_of(c).activation->threshold > 0;
      ASSERT_EQ(kernels.empty(), info.affine.kept > 0 && !keeps) << c.inputs;
      std::vector<float> first;
      for (const LinearKernel* kernel : kernels) {
        const Packed packed = pack_all(*kernel, tensor.view());
        if (first.empty()) expect_products(*kernel, packed, tensor.view(), c);
        const auto out = compute(*kernel, packed, make_inputs(cols), kTokens, rounding_of(c, &tensor.view()));
        if (first.empty()) first = out;
        ASSERT_EQ(out, first) << kernel->name << ", inputs " << c.inputs << ", " << cols << " columns";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Weights, RowsOf, testing::ValuesIn(kWeights), [](const auto& param) {
  std::string name = param.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// Inputs of magnitudes over the threshold, and those that are no numbers, come through as they are.
TEST(Rows, KeptInputsAreNotRounded) {
  const encoding::EncodingInfo& info = encoding::get("int8-channel");
  const Tensor tensor = make_weights(info, kRows, 64, 5);
  std::vector<float> weights(static_cast<std::size_t>(kRows * 64));
  encoding::decode_rows(tensor.view(), 0, kRows, weights.data());
  const Case c = {"int8-token-over6", 0, 0};
  for (const LinearKernel* kernel : kernels_of(info, rounding_of(c), 64)) {
    const Packed packed = pack_all(*kernel, tensor.view());
    std::vector<float> x(static_cast<std::size_t>(kTokens * 64));
    for (std::int64_t t = 0; t < kTokens; ++t) x[static_cast<std::size_t>(t * 64 + t)] = 1234.567f;
    x[40 * 64] = HUGE_VALF;
    const auto out = compute(*kernel, packed, x, kTokens, rounding_of(c));
    for (std::int64_t i = 0; i < 40 * kRows; ++i)
      EXPECT_EQ(out[static_cast<std::size_t>(i)],
                1234.567f * weights[static_cast<std::size_t>(i % kRows * 64 + i / kRows)]);
    EXPECT_FALSE(std::isfinite(out[40 * kRows]));
  }
}

TEST(Rows, AreChosenByHowInputsAreRounded) {
  const auto chosen = [](const char* weights, const char* inputs) {
    const encoding::ActivationInfo* type = inputs != nullptr ? &encoding::get_activation(inputs) : nullptr;
    return std::string(family_of(choose_linear(encoding::get(weights), 512, machine_isa(), true, type)));
  };
  if (machine_isa() == Isa::kAmx) {
    const LinearKernel& wide =
        choose_wide(encoding::get("int8-channel"), 512, Isa::kAmx, true, &encoding::get_activation("int8-token"));
    EXPECT_EQ(wide.name, "affine-rows/amx");
  }
  EXPECT_EQ(chosen("int8-channel", nullptr), "affine");
  EXPECT_EQ(chosen("int8-channel", "int8-token"), "affine-rows");
  EXPECT_EQ(chosen("int4-g128", "int8-tensor-asym"), "affine-rows");
  EXPECT_EQ(chosen("int8-channel", "int8-token-over6"), "affine-kept-rows");
  EXPECT_EQ(chosen("int8-channel", "int8-g64"), "affine");
  EXPECT_EQ(chosen("int8-channel", "int8-g48"), "generic");
  EXPECT_EQ(chosen("int8-channel", "fp8-token"), "generic");
}

}  // namespace
}  // namespace nibble::kernel
