// Every kernel of the table against the decoded weights, on every encoding it accepts and every tail length.
#include "kernel/linear_test.h"

#include "tensor/half.h"

namespace nibble::kernel {
namespace {

struct Case {
  const LinearKernel* kernel;
  const encoding::EncodingInfo* encoding;
};

std::vector<std::int64_t> widths(const Case& c) {
  std::vector<std::int64_t> all;
  for (const std::int64_t cols : {32, 64, 96, 256, 288, 512, 768, 1056, 2304}) {
    if (cols % c.encoding->block_elements == 0 && c.kernel->accepts(*c.encoding, cols)) all.push_back(cols);
  }
  return all;
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const LinearKernel* kernel : all_entries()) {
    if (kernel->isa > machine_isa()) continue;
    for (const encoding::EncodingInfo* info : encodings()) {
      if (!widths({kernel, info}).empty()) cases.push_back({kernel, info});
    }
  }
  return cases;
}

class Linear : public testing::TestWithParam<Case> {};

TEST_P(Linear, UnpacksTheExactRows) {
  const auto& [kernel, info] = GetParam();
  for (const std::int64_t cols : widths(GetParam())) {
    for (const std::int64_t rows : {1, 15, 16, 17, 40}) {
      const Tensor tensor = make_weights(*info, rows, cols, 7);
      const TensorView view = tensor.view();
      std::vector<std::int32_t> row_map(static_cast<std::size_t>(rows));
      for (std::int64_t r = 0; r < rows; ++r)
        row_map[static_cast<std::size_t>(r)] = static_cast<std::int32_t>((r * 7 + 3) % rows);
      std::vector<float> expected(static_cast<std::size_t>(rows * cols));
      encoding::decode_rows(view, 0, rows, expected.data());
      for (const std::int32_t* map :
           {static_cast<const std::int32_t*>(nullptr), static_cast<const std::int32_t*>(row_map.data())}) {
        const Packed packed = pack_all(*kernel, view, map);
        std::vector<float> row(static_cast<std::size_t>(cols));
        for (std::int64_t r = 0; r < rows; ++r) {
          kernel->layout.unpack_row(packed.matrix, packed.buffer.data(), r, row.data());
          const float* source = expected.data() + (map != nullptr ? map[r] : r) * cols;
          ASSERT_EQ(0, std::memcmp(row.data(), source, row.size() * sizeof(float)))
              << rows << "x" << cols << " row " << r;
        }
      }
    }
  }
}

TEST_P(Linear, ProductsMatchTheDecodedWeights) {
  const auto& [kernel, info] = GetParam();
  // The integer kernels round the levels of codebooks to 16 bits. Tiles hold weights in bf16: where the scaled level
  // lies between two of those, one rounding before or two may make them differ.
  const bool tiles = in_tiles(*kernel);
  const double tolerance = tiles && kernel->products == 1 ? 2e-4 : kernel->name.starts_with("codebook/") ? 3e-5 : 2e-6;
  for (const std::int64_t cols : widths(GetParam())) {
    const std::int64_t rows = cols == 288 ? 100 : 37;
    const Tensor tensor = make_weights(*info, rows, cols, 11);
    const TensorView view = tensor.view();
    std::vector<float> weights(static_cast<std::size_t>(rows * cols));
    encoding::decode_rows(view, 0, rows, weights.data());
    if (tiles && kernel->products == 1) {
      for (float& w : weights) w = bf16_to_f32(f32_to_bf16(w));
    }
    const Packed packed = pack_all(*kernel, view);
    constexpr std::int64_t kTokens = 33;
    auto x = sort_columns(*kernel, packed, make_activations(kTokens, cols, 5), true);
    const auto out = compute(*kernel, packed, x, kTokens);
    const InputRounding inputs = test_inputs(*kernel, packed);
    for (std::int64_t t = 0; t < kTokens && inputs.activation != nullptr; ++t)
      encoding::round_inputs(inputs, x.data() + t * cols, cols, x.data() + t * cols);
    for (std::int64_t t = 0; t < kTokens; ++t) {
      for (std::int64_t r = 0; r < rows; ++r) {
        double sum = 0;
        double magnitude = 0;
        for (std::int64_t c = 0; c < cols; ++c) {
          const double product = static_cast<double>(weights[static_cast<std::size_t>(r * cols + c)]) *
                                 x[static_cast<std::size_t>(t * cols + c)];
          sum += product;
          magnitude += std::fabs(product);
        }
        ASSERT_NEAR(out[static_cast<std::size_t>(t * rows + r)], sum, tolerance * magnitude + 1e-30)
            << rows << "x" << cols << " token " << t << " row " << r;
      }
    }
  }
}

// Pairs of bf16 hold 16 bits of an activation, and of a weight.
TEST(Kernels, PairsOfBf16HoldSixteenBits) {
  for (const LinearKernel* kernel : all_entries()) {
    if (kernel->isa > machine_isa() || kernel->products == 1) continue;
    for (const char* name : {"f16", "bf16"}) {
      constexpr std::int64_t kRows = 20, kCols = 300, kTokens = 21;
      if (!kernel->accepts(encoding::get(name), kCols)) continue;
      const Tensor tensor = make_weights(encoding::get(name), kRows, kCols, 3);
      std::vector<float> weights(kRows * kCols), x(kTokens * kCols);
      encoding::decode_rows(tensor.view(), 0, kRows, weights.data());
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = random_normal(7, 0, i);
      const auto out = compute(*kernel, pack_all(*kernel, tensor.view()), x, kTokens);
      for (std::int64_t i = 0; i < kTokens * kRows; ++i) {
        double sum = 0, magnitude = 0;
        for (std::int64_t c = 0; c < kCols; ++c) {
          const double product = static_cast<double>(weights[static_cast<std::size_t>(i % kRows * kCols + c)]) *
                                 static_cast<double>(x[static_cast<std::size_t>(i / kRows * kCols + c)]);
          sum += product;
          magnitude += std::fabs(product);
        }
        ASSERT_NEAR(out[static_cast<std::size_t>(i)], sum, magnitude / (1 << 16)) << kernel->name << " " << name;
      }
    }
  }
}

TEST_P(Linear, AValueDoesNotDependOnTheBatch) {
  const auto& [kernel, info] = GetParam();
  for (const std::int64_t cols : widths(GetParam())) {
    if (cols == 96 || cols == 512 || cols == 768) continue;
    const std::int64_t rows = 51;
    const Tensor tensor = make_weights(*info, rows, cols, 13);
    const Packed packed = pack_all(*kernel, tensor.view());
    const auto x = make_activations(33, cols, 9);
    const auto all = compute(*kernel, packed, x, 33);
    for (const std::int64_t n : {1, 2, 3, 4, 5, 6, 7, 10, 17}) {
      const auto some = compute(*kernel, packed, x, n);
      ASSERT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << cols << " columns, " << n << " tokens";
    }
  }
}

// More tokens than a pass over the panels takes.
TEST_P(Linear, PassesOfTokensDoNotChangeAValue) {
  const auto& [kernel, info] = GetParam();
  constexpr std::int64_t kRows = 17, kCols = 2304, kTokens = 150;
  ASSERT_TRUE(kernel->accepts(*info, kCols));
  const Tensor tensor = make_weights(*info, kRows, kCols, 19);
  const Packed packed = pack_all(*kernel, tensor.view());
  const auto x = make_activations(kTokens, kCols, 3);
  const auto all = compute(*kernel, packed, x, kTokens);
  for (const std::int64_t first : {0, 100, 120, 140}) {
    const std::vector<float> part(x.begin() + first * kCols, x.begin() + (first + 10) * kCols);
    const auto some = compute(*kernel, packed, part, 10);
    ASSERT_TRUE(std::equal(some.begin(), some.end(), all.begin() + first * kRows)) << "from token " << first;
  }
}

// One family gives the same bits on every instruction set.
TEST_P(Linear, AgreesWithTheOtherPathsOfItsFamily) {
  const auto& [kernel, info] = GetParam();
  for (const LinearKernel* other : all_entries()) {
    if (other == kernel || other->isa > machine_isa() || family_of(*other) != family_of(*kernel)) continue;
    if (in_tiles(*kernel) != in_tiles(*other)) continue;  // other activations, other roundings
    for (const std::int64_t cols : widths(GetParam())) {
      if (!other->accepts(*info, cols)) continue;
      const std::int64_t rows = 50;
      const Tensor tensor = make_weights(*info, rows, cols, 17);
      const Packed packed = pack_all(*kernel, tensor.view());
      std::vector<float> x(static_cast<std::size_t>(7 * cols));
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = random_normal(21, 0, i);
      const auto mine = quantize(*kernel, x, 7, cols);
      const auto theirs = quantize(*other, x, 7, cols);
      ASSERT_EQ(0, std::memcmp(mine.data(), theirs.data(), mine.size())) << other->name;
      ASSERT_EQ(compute(*kernel, packed, x, 7), compute(*other, packed, x, 7))
          << other->name << ", " << cols << " columns";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Table, Linear, testing::ValuesIn(all_cases()), [](const auto& param) {
  std::string name = std::string(param.param.kernel->name) + "_" + param.param.encoding->name;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
});

}  // namespace
}  // namespace nibble::kernel
