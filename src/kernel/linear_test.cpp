// Every kernel of the table against the decoded weights, on every encoding it accepts and every tail length.
#include "kernel/linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/rng.h"
#include "encoding/affine.h"
#include "encoding/block_grid.h"

namespace nibble::kernel {
namespace {

bool all_finite(const float* values, std::int64_t n) {
  return std::all_of(values, values + n, [](float v) { return std::isfinite(v) && std::fabs(v) < 1e6f; });
}

// Random bytes for one block of a type that is only read, such that they decode to finite numbers.
void random_block(const encoding::EncodingInfo& info, std::uint64_t seed, std::uint64_t& draw, std::byte* dst) {
  std::vector<float> decoded(static_cast<std::size_t>(info.block_elements));
  do {
    for (int i = 0; i < info.block_bytes; ++i) dst[i] = static_cast<std::byte>(random_bits(seed, 1, draw++));
    info.decode(dst, decoded.data(), info.block_elements);
  } while (!all_finite(decoded.data(), info.block_elements));
}

Tensor make_affine(const encoding::EncodingInfo& info, std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  const encoding::AffineParams& params = info.affine;
  Tensor tensor(info, Shape{rows, cols});
  const auto row_bytes = static_cast<std::int64_t>(encoding::row_code_bytes(params, cols));
  const Shape scales_shape = encoding::scales_shape(params, Shape{rows, cols});
  const auto codes = tensor.add_part(PartRole::kCodes, Dtype::kU8, Shape{rows, row_bytes});
  const auto scales = tensor.add_part(PartRole::kScales, params.scale_dtype, scales_shape);
  std::span<std::byte> zeros;
  if (!params.symmetric) zeros = tensor.add_part(PartRole::kZeros, Dtype::kU8, scales_shape);
  std::vector<std::uint8_t> stored(static_cast<std::size_t>(cols));
  std::uint64_t draw = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::uint8_t& code : stored)
      code = static_cast<std::uint8_t>(random_bits(seed, 4, draw++) & ((1u << params.bits) - 1));
    encoding::pack_codes(params.bits, stored.data(), cols, codes.data() + r * row_bytes);
  }
  for (std::int64_t i = 0; i < scales_shape.elements(); ++i) {
    const encoding::ScaleZero at{0.01f + 0.01f * random_uniform(seed, 5, static_cast<std::uint64_t>(i)),
                                 params.symmetric ? 0 : static_cast<int>(i % (1 << params.bits))};
    encoding::store_scale_zero(params, at, scales.data(), zeros.data(), i);
  }
  return tensor;
}

// Weights of any encoding: rounded from a normal distribution, or random codes of those that are only read.
Tensor make_weights(const encoding::EncodingInfo& info, std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  if (info.family == encoding::Family::kAffine) return make_affine(info, rows, cols, seed);
  const auto row_bytes = static_cast<std::int64_t>(encoding::row_bytes(info, cols));
  Tensor tensor(info, Shape{rows, cols});
  const auto bytes = tensor.add_part(PartRole::kCodes, Dtype::kU8, Shape{rows, row_bytes});
  if (info.encode != nullptr) {
    std::vector<float> values(static_cast<std::size_t>(rows * cols));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.05f * random_normal(seed, 0, i);
    info.encode(values.data(), bytes.data(), rows * cols);
    return tensor;
  }
  std::uint64_t draw = 0;
  for (std::size_t at = 0; at < bytes.size(); at += static_cast<std::size_t>(info.block_bytes)) {
    random_block(info, seed, draw, bytes.data() + at);
  }
  return tensor;
}

// Activations that int8 with one scale per 32 columns holds exactly: whole numbers up to 127 times a power of two.
std::vector<float> make_activations(std::int64_t n, std::int64_t cols, std::uint64_t seed) {
  std::vector<float> x(static_cast<std::size_t>(n * cols));
  for (std::int64_t i = 0; i < n * cols; ++i) {
    const std::uint64_t bits = random_bits(seed, 2, static_cast<std::uint64_t>(i));
    const int whole = i % cols % 32 == 5 ? 127 : static_cast<int>(bits % 255) - 127;
    const int exponent =
        -static_cast<int>(random_bits(seed, 3, static_cast<std::uint64_t>(i / cols * 1000 + i % cols / 32)) % 6);
    x[static_cast<std::size_t>(i)] = std::ldexp(static_cast<float>(whole), exponent);
  }
  return x;
}

struct Packed {
  MatrixInfo matrix;
  AlignedBuffer buffer;
};

Packed pack_all(const LinearKernel& kernel, const TensorView& view, const std::int32_t* row_map = nullptr) {
  Packed packed{{view.encoding, view.rows(), view.cols()}, {}};
  packed.buffer = AlignedBuffer(kernel.layout.bytes(packed.matrix));
  std::memset(packed.buffer.data(), 0xA5, packed.buffer.size());
  const std::int64_t middle = view.rows() / 2 / kernel.layout.row_block * kernel.layout.row_block;
  kernel.layout.pack(view, row_map, middle, view.rows(), packed.buffer.data());
  kernel.layout.pack(view, row_map, 0, middle, packed.buffer.data());
  return packed;
}

AlignedBuffer quantize(const LinearKernel& kernel, const std::vector<float>& x, std::int64_t n, std::int64_t cols) {
  AlignedBuffer out(kernel.activation->row_bytes(cols) * static_cast<std::uint64_t>(n));
  kernel.activation->quantize(x.data(), cols, n, cols, out.data());
  return out;
}

std::vector<float> compute(const LinearKernel& kernel, const Packed& packed, const std::vector<float>& x,
                           std::int64_t n) {
  const MatrixInfo& matrix = packed.matrix;
  const AlignedBuffer activations = quantize(kernel, x, n, matrix.cols);
  const std::int64_t ldo = matrix.rows + 3;
  std::vector<float> out(static_cast<std::size_t>(n * ldo), -1.0f);
  const std::int64_t block = kernel.layout.row_block;
  const std::int64_t middle = (matrix.rows / 2 + block - 1) / block * block;
  kernel.compute(matrix, packed.buffer.data(), activations.data(), n, 0, std::min(middle, matrix.rows), out.data(),
                 ldo);
  if (middle < matrix.rows) {
    kernel.compute(matrix, packed.buffer.data(), activations.data(), n, middle, matrix.rows, out.data(), ldo);
  }
  for (std::int64_t t = 0; t < n; ++t) {  // nothing is written beside the rows
    for (std::int64_t r = matrix.rows; r < ldo; ++r) EXPECT_EQ(out[static_cast<std::size_t>(t * ldo + r)], -1.0f);
  }
  std::vector<float> dense;
  for (std::int64_t t = 0; t < n; ++t)
    dense.insert(dense.end(), out.begin() + t * ldo, out.begin() + t * ldo + matrix.rows);
  return dense;
}

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

// The fixed encodings and some of the affine family: every width, grain and scale type.
std::vector<const encoding::EncodingInfo*> encodings() {
  std::vector<const encoding::EncodingInfo*> all(encoding::all_entries().begin(), encoding::all_entries().end());
  for (const char* name : {"int2-g16-asym", "int3-g32", "int4-g32-asym-f16", "int4-g128", "int4-g128-asym-bf16",
                           "int4-g48", "int5-g64-asym", "int6-channel", "int7-g96", "int8-channel", "int8-channel-asym",
                           "int8-tensor", "int8-g256-restricted"}) {
    all.push_back(&encoding::get(name));
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
  for (const std::int64_t cols : widths(GetParam())) {
    const std::int64_t rows = cols == 288 ? 100 : 37;
    const Tensor tensor = make_weights(*info, rows, cols, 11);
    const TensorView view = tensor.view();
    std::vector<float> weights(static_cast<std::size_t>(rows * cols));
    encoding::decode_rows(view, 0, rows, weights.data());
    const Packed packed = pack_all(*kernel, view);
    constexpr std::int64_t kTokens = 33;
    const auto x = make_activations(kTokens, cols, 5);
    const auto out = compute(*kernel, packed, x, kTokens);
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
        ASSERT_NEAR(out[static_cast<std::size_t>(t * rows + r)], sum, 2e-6 * magnitude + 1e-30)
            << rows << "x" << cols << " token " << t << " row " << r;
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

// One family gives the same bits on every instruction set.
TEST_P(Linear, AgreesWithTheOtherPathsOfItsFamily) {
  const auto& [kernel, info] = GetParam();
  const auto family = kernel->name.substr(0, kernel->name.find('/'));
  for (const LinearKernel* other : all_entries()) {
    if (other == kernel || other->isa > machine_isa() || !other->name.starts_with(family)) continue;
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

// The extreme codes: no sum on the way may overflow or saturate.
// Makes one number of row `row` of block or dense weights infinite: a scale, or a weight.
void make_infinite(Tensor& tensor, std::int64_t row) {
  const encoding::EncodingInfo& info = *tensor.view().encoding;
  const std::uint64_t row_bytes = encoding::row_bytes(info, tensor.view().cols());
  auto* at = const_cast<std::byte*>(tensor.view().data().data()) + static_cast<std::uint64_t>(row) * row_bytes;
  if (info.grid != nullptr) {
    encoding::BlockFields fields;
    info.grid->unpack(at, fields);
    fields.d = std::numeric_limits<float>::infinity();
    info.grid->pack(fields, at);
  } else {
    const float value = -std::numeric_limits<float>::infinity();
    info.encode(&value, at, 1);
  }
}

TEST(Kernels, PackingNamesTheRowOfANumberThatIsNotFinite) {
  for (const LinearKernel* kernel : all_entries()) {
    if (kernel->isa == Isa::kScalar) continue;
    for (const char* name :
         {"q4_0", "q4_1", "q8_0", "iq4_nl", "q2_k", "q4_k", "q6_k", "iq4_xs", "f32", "f16", "bf16"}) {
      const encoding::EncodingInfo& info = encoding::get(name);
      if (!kernel->accepts(info, 512)) continue;
      Tensor tensor = make_weights(info, 21, 512, 8);
      EXPECT_NO_THROW(pack_all(*kernel, tensor.view())) << kernel->name << " " << name;
      make_infinite(tensor, 18);
      try {
        pack_all(*kernel, tensor.view());
        FAIL() << kernel->name << " " << name;
      } catch (const Error& error) {
        EXPECT_EQ(error.message().find("row 18"), 0u) << error.message();
      }
    }
  }
}

TEST(LinearExtremes, LargestProductsAreExact) {
  for (const LinearKernel* kernel : all_entries()) {
    if (kernel->isa > machine_isa()) continue;
    for (const encoding::EncodingInfo* info : encoding::all_entries()) {
      if (info->family != encoding::Family::kBlock || !kernel->accepts(*info, 256)) continue;
      for (const int fill : {0x00, 0x80, 0x7F, 0xFF}) {
        std::vector<std::byte> bytes(static_cast<std::size_t>(info->block_bytes * 16 * 256 / info->block_elements),
                                     static_cast<std::byte>(fill));
        const TensorView view = make_view(*info, Shape{16, 256}, bytes);
        std::vector<float> weights(16 * 256);
        // Bytes of 7F and FF would make the scales NaN or too large: give f16 scales one that is 1.
        for (std::size_t at = 0; info->grid != nullptr && at < bytes.size();
             at += static_cast<std::size_t>(info->block_bytes)) {
          encoding::BlockFields fields;
          info->grid->unpack(bytes.data() + at, fields);
          fields.d = 1;
          fields.dmin = 1;
          info->grid->pack(fields, bytes.data() + at);
        }
        encoding::decode_rows(view, 0, 16, weights.data());
        if (!all_finite(weights.data(), 16 * 256)) continue;
        std::vector<float> x(7 * 256);
        for (std::size_t i = 0; i < x.size(); ++i)
          x[i] = i < 256 * 3 ? 127.0f : i < 256 * 5 ? -127.0f : i % 2 == 0 ? 127.0f : -127.0f;
        const auto out = compute(*kernel, pack_all(*kernel, view), x, 7);
        for (std::size_t t = 0; t < 7; ++t) {
          double sum = 0;
          double magnitude = 0;
          for (std::size_t c = 0; c < 256; ++c) {
            sum += static_cast<double>(weights[c]) * static_cast<double>(x[t * 256 + c]);
            magnitude += std::fabs(static_cast<double>(weights[c]) * static_cast<double>(x[t * 256 + c]));
          }
          ASSERT_NEAR(out[t * 16], sum, 1e-5 * magnitude + 1e-30)
              << kernel->name << " " << info->name << " bytes " << fill;
        }
      }
    }
  }
}

TEST(ChooseLinear, AlwaysFindsAKernelWithinTheInstructionSet) {
  for (const encoding::EncodingInfo* info : encodings()) {
    for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
      const LinearKernel& kernel = choose_linear(*info, 512, isa);
      EXPECT_LE(kernel.isa, isa);
      EXPECT_TRUE(kernel.accepts(*info, 512));
    }
  }
}

TEST(ChooseLinear, SaysWhichWeightsItCannotTake) {
  try {
    choose_linear(encoding::get("q4_k"), 96, Isa::kScalar);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(error.message().find("q4_k"), std::string::npos);
  }
}

}  // namespace
}  // namespace nibble::kernel
