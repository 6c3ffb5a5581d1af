// The affine family: names, layout of the parts, the symmetric rules, decoding.
#include "encoding/affine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/rng.h"
#include "encoding/golden_test.h"

namespace nibble::encoding {
namespace {

const std::vector<std::string> kRules = {"", "-asym", "-restricted", "-awq", "-ct"};

TEST(AffineNames, AreInterned) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const char* grain : {"-tensor", "-channel", "-g1", "-g32", "-g96", "-g128"}) {
      for (const std::string& rule : kRules) {
        for (const char* scale : {"", "-f16", "-bf16"}) {
          const std::string name = format_text("int{}{}{}{}", bits, grain, rule, scale);
          const EncodingInfo& info = get(name);
          EXPECT_EQ(info.name, name);
          EXPECT_EQ(info.family, Family::kAffine);
          EXPECT_EQ(find(name), &info);
          EXPECT_EQ(&affine_encoding(info.affine), &info);
        }
      }
    }
  }
  EXPECT_NE(&get("int4-g64"), &get("int4-g128"));
  EXPECT_DOUBLE_EQ(get("int4-g128-asym-f16").bits_per_weight, 4 + 24.0 / 128);
}

TEST(AffineNames, RefuseNonsense) {
  for (const char* name : {"int",
                           "int4",
                           "int4-",
                           "int1-channel",
                           "int9-channel",
                           "int04-channel",
                           "int4-g",
                           "int4-g0",
                           "int4-g-1",
                           "int4-g032",
                           "int4-g128-",
                           "int4-g128-sym",
                           "int4-g128-asym-awq",
                           "int4-g128-awq-asym",
                           "int4-channel-f32",
                           "INT4-channel",
                           "int4-g99999999999999999999",
                           "int4-g128 ",
                           " int4-g128",
                           "int-4-channel",
                           "int4-channel-f16-f16",
                           "int4-g+8"}) {
    EXPECT_EQ(find(name), nullptr) << name;
    EXPECT_THROW(get(name), Error) << name;
  }
  try {
    get("int4-g128-sym");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("near names: int4-g128"));
    EXPECT_THAT(error.what(), testing::HasSubstr("int{2..8}"));
  }
  EXPECT_THROW(affine_encoding({.bits = 9}), Error);
  EXPECT_THROW(affine_encoding({.granularity = Granularity::kGroup, .group = 0}), Error);
  EXPECT_THROW(affine_encoding({.scale_dtype = Dtype::kI8}), Error);
}

// Scales of the four rules for max |w| = 7, from the formulas of the GPTQ, compressed-tensors, SmoothQuant and AWQ
// codes.
TEST(AffineScale, FollowsTheRule) {
  const auto scale = [](const char* name) { return scale_of_range(get(name).affine, -3.0f, 7.0f).scale; };
  EXPECT_EQ(scale("int4-channel-restricted"), 1.0f);
  EXPECT_EQ(scale("int4-channel-awq"), 1.0f);
  EXPECT_EQ(scale("int4-channel"), 14.0f / 15.0f);
  EXPECT_EQ(scale("int4-channel-ct"), 7.0f / 7.5f);
  EXPECT_EQ(scale("int2-channel-restricted"), 7.0f);
  EXPECT_EQ(scale("int2-channel"), 14.0f / 3.0f);
  EXPECT_EQ(scale("int8-channel-restricted"), 7.0f / 127.0f);
  const ScaleZero asym = scale_of_range(get("int4-channel-asym").affine, -3.0f, 7.0f);
  EXPECT_EQ(asym.scale, 10.0f / 15.0f);
  EXPECT_EQ(asym.zero, 4);  // round(4.5), ties to even
  const ScaleZero positive = scale_of_range(get("int4-channel-asym").affine, 2.0f, 3.0f);
  EXPECT_EQ(positive.scale, 0.2f);
  EXPECT_EQ(positive.zero, 0);
}

TEST(AffineScale, SurvivesTheExtremes) {
  constexpr float kMax = std::numeric_limits<float>::max();
  for (int bits = 2; bits <= 8; ++bits) {
    for (const std::string& rule : kRules) {
      for (const char* dtype : {"", "-f16", "-bf16"}) {
        const AffineParams& params = get(format_text("int{}-channel{}{}", bits, rule, dtype)).affine;
        EXPECT_TRUE(std::isfinite(scale_of_range(params, -kMax, kMax).scale));
        EXPECT_EQ(scale_of_range(params, 0, 0).scale, 0.0f);
        const ScaleZero tiny = scale_of_range(params, -1e-44f, 1e-44f);
        const CodeRange range = code_range(params);
        for (const float value : {0.0f, 1e-44f, kMax, -kMax, INFINITY, -INFINITY}) {
          const int code = nearest_code(params, value, tiny);
          EXPECT_GE(code, range.min);
          EXPECT_LE(code, range.max);
        }
      }
    }
  }
}

TEST(AffineCode, RoundsTiesToEvenAndClamps) {
  const AffineParams& params = get("int4-channel").affine;
  const ScaleZero one{1.0f, 0};
  EXPECT_EQ(nearest_code(params, 2.5f, one), 2);
  EXPECT_EQ(nearest_code(params, 3.5f, one), 4);
  EXPECT_EQ(nearest_code(params, -2.5f, one), -2);
  EXPECT_EQ(nearest_code(params, 100.0f, one), 7);
  EXPECT_EQ(nearest_code(params, -100.0f, one), -8);
  EXPECT_EQ(nearest_code(get("int4-channel-restricted").affine, -100.0f, one), -7);
  EXPECT_EQ(nearest_code(params, INFINITY, one), 7);
  EXPECT_EQ(nearest_code(params, -INFINITY, one), -8);
  EXPECT_EQ(nearest_code(params, NAN, one), 0);
  EXPECT_EQ(nearest_code(get("int4-channel-asym").affine, NAN, {1.0f, 5}), 5);
  EXPECT_EQ(nearest_code(params, 3.0f, {0.0f, 0}), 0);
}

TEST(AffineLayout, IsALittleEndianBitStream) {
  const std::uint8_t codes[] = {1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3};
  std::byte bytes[5] = {};
  pack_codes(3, codes, 11, bytes);
  // 11 codes of 3 bits, lowest first: 33 bits, the last byte filled with zeros.
  const std::uint64_t stream = 1 | 2 << 3 | 3 << 6 | 4 << 9 | 5 << 12 | 6 << 15 | 7 << 18 | std::uint64_t{1} << 24 |
                               std::uint64_t{2} << 27 | std::uint64_t{3} << 30;
  for (int i = 0; i < 5; ++i) EXPECT_EQ(std::to_integer<unsigned>(bytes[i]), (stream >> 8 * i) & 0xFF) << i;
  const std::uint8_t nibbles[] = {1, 2, 3};
  pack_codes(4, nibbles, 3, bytes);
  EXPECT_EQ(bytes[0], std::byte{0x21});
  EXPECT_EQ(bytes[1], std::byte{0x03});
}

TEST(AffineLayout, PacksEveryWidthAndTail) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (std::int64_t cols = 0; cols < 40; ++cols) {
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(cols));
      for (std::size_t i = 0; i < codes.size(); ++i) {
        codes[i] = static_cast<std::uint8_t>(random_bits(9, static_cast<std::uint64_t>(bits), i) & ((1u << bits) - 1));
      }
      const auto n_bytes = row_code_bytes({.bits = bits}, cols);
      ASSERT_EQ(n_bytes, static_cast<std::uint64_t>((cols * bits + 7) / 8));
      std::vector<std::byte> bytes(n_bytes + 1, std::byte{0xEE});
      pack_codes(bits, codes.data(), cols, bytes.data());
      EXPECT_EQ(bytes.back(), std::byte{0xEE});
      std::vector<std::uint8_t> back(codes.size());
      unpack_codes(bits, bytes.data(), cols, back.data());
      EXPECT_EQ(back, codes);
    }
  }
}

// Quantizes a (rows, cols) tensor as the reference does.
Tensor quantize(const EncodingInfo& info, const std::vector<float>& values, std::int64_t rows, std::int64_t cols) {
  const AffineParams& params = info.affine;
  Tensor tensor = allocate(info, {rows, cols});
  const auto codes = tensor.mutable_part(PartRole::kCodes);
  const auto scales = tensor.mutable_part(PartRole::kScales);
  std::byte* zeros = params.symmetric ? nullptr : tensor.mutable_part(PartRole::kZeros).data();
  const std::int64_t group = group_columns(params, cols);
  const std::int64_t n_groups = groups_per_row(params, cols);
  for (std::int64_t r = 0; r < rows; ++r) {
    std::vector<ScaleZero> at(static_cast<std::size_t>(n_groups));
    for (std::int64_t g = 0; g < n_groups; ++g) {
      auto begin = values.begin() + r * cols + g * group;
      auto end = values.begin() + std::min((r + 1) * cols, r * cols + (g + 1) * group);
      if (params.granularity == Granularity::kTensor) begin = values.begin(), end = values.end();
      const auto [low, high] = std::minmax_element(begin, end);
      at[static_cast<std::size_t>(g)] = scale_of_range(params, *low, *high);
      const std::int64_t index = params.granularity == Granularity::kTensor ? 0 : r * n_groups + g;
      store_scale_zero(params, at[static_cast<std::size_t>(g)], scales.data(), zeros, index);
    }
    const auto stride = static_cast<std::int64_t>(row_code_bytes(params, cols));
    quantize_row(params, values.data() + r * cols, cols, at.data(), codes.data() + r * stride);
  }
  return tensor;
}

class AffineRoundTrip : public testing::TestWithParam<std::string> {};

TEST_P(AffineRoundTrip, ErrsByHalfAStep) {
  constexpr std::int64_t kRows = 3;
  for (int bits = 2; bits <= 8; ++bits) {
    for (const std::int64_t cols : {1, 31, 64, 100, 129}) {
      const EncodingInfo& info = get(format_text("int{}{}", bits, GetParam()));
      std::vector<float> values(static_cast<std::size_t>(kRows * cols));
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = random_normal(4, 2, i);
      const Tensor tensor = quantize(info, values, kRows, cols);
      const TensorView& view = tensor.view();
      EXPECT_NO_THROW(validate(view));
      EXPECT_EQ(view.n_bytes(), tensor_bytes(info, view.shape));
      std::vector<float> back(values.size());
      decode_rows(view, 0, kRows, back.data());
      std::vector<float> last(static_cast<std::size_t>(cols));
      decode_rows(view, 2, 3, last.data());
      EXPECT_TRUE(std::equal(last.begin(), last.end(), back.begin() + 2 * cols));
      const AffineParams& params = info.affine;
      const std::int64_t n_groups = groups_per_row(params, cols);
      const std::byte* zeros = params.symmetric ? nullptr : view.part(PartRole::kZeros).bytes.data();
      for (std::int64_t i = 0; i < kRows * cols; ++i) {
        const std::int64_t index = params.granularity == Granularity::kTensor
                                       ? 0
                                       : i / cols * n_groups + i % cols / group_columns(params, cols);
        const ScaleZero at = load_scale_zero(params, view.part(PartRole::kScales).bytes.data(), zeros, index);
        const auto at_i = static_cast<std::size_t>(i);
        // Half a step; a whole one where the code range ends short of the largest value, and for the rounding of the
        // zero.
        EXPECT_LE(std::fabs(back[at_i] - values[at_i]), at.scale * 1.01f) << info.name << " " << i;
        // What was decoded is a value of the grid: it encodes to itself.
        EXPECT_EQ(decode_code(nearest_code(params, back[at_i], at), at), back[at_i]);
      }
    }
  }
}

TEST(AffineGroups, AreSortedWhereColumnsListThem) {
  const Shape shape = {1, 7};
  Tensor listed = allocate(get("int4-g3-gidx"), shape);
  const auto list = [&](std::vector<std::int32_t> groups) {
    std::memcpy(listed.mutable_part(PartRole::kGroupIndex).data(), groups.data(), groups.size() * 4);
  };
  list({1, 0, 2, 1, 0, 0, 1});
  EXPECT_EQ(columns_by_group(listed.view()), (std::vector<std::int32_t>{1, 4, 5, 0, 3, 6, 2}));
  EXPECT_TRUE(has_even_groups(listed.view()));
  list({1, 0, 2, 1, 0, 2, 1});
  EXPECT_EQ(columns_by_group(listed.view()), (std::vector<std::int32_t>{1, 4, 0, 3, 6, 2, 5}));
  EXPECT_FALSE(has_even_groups(listed.view()));
  EXPECT_TRUE(has_even_groups(allocate(get("int4-g3"), shape).view()));
  EXPECT_TRUE(has_even_groups(allocate(get("f32"), shape).view()));
}

// The same scales and zeros as PyTorch's observers, and the values that follow (testdata/affine.txt).
TEST(AffineGolden, AgreesWithPyTorch) {
  constexpr std::int64_t kRows = 6;
  constexpr std::int64_t kCols = 96;
  const std::vector<float> values = hashed_values(kRows * kCols);
  std::istringstream lines(read_file(NIBBLE_SOURCE_DIR "/src/encoding/testdata/affine.txt"));
  std::string name;
  std::string expected[3];
  int n = 0;
  while (lines >> name >> expected[0] >> expected[1] >> expected[2]) {
    const EncodingInfo& info = get(name);
    const AffineParams& params = info.affine;
    const Tensor tensor = quantize(info, values, kRows, kCols);
    const TensorView& view = tensor.view();
    const std::byte* zeros = params.symmetric ? nullptr : view.part(PartRole::kZeros).bytes.data();
    Hash hash[3];
    for (std::int64_t i = 0; i < kRows * groups_per_row(params, kCols); ++i) {
      const ScaleZero at = load_scale_zero(params, view.part(PartRole::kScales).bytes.data(), zeros, i);
      hash[0].add(std::bit_cast<std::uint32_t>(at.scale));
      hash[1].add(static_cast<std::uint32_t>(at.zero));
    }
    std::vector<float> back(values.size());
    decode_rows(view, 0, kRows, back.data());
    for (const float value : back) hash[2].add(std::bit_cast<std::uint32_t>(value));
    for (int i = 0; i < 3; ++i) EXPECT_EQ(format_text("{:016x}", hash[i].value), expected[i]) << name << " " << i;
    ++n;
  }
  EXPECT_EQ(n, 7 * 2 * 2);
}

std::vector<std::string> all_variants() {
  std::vector<std::string> names;
  for (const char* grain : {"-tensor", "-channel", "-g1", "-g32", "-g100"}) {
    for (const std::string& rule : kRules) {
      for (const char* scale : {"", "-f16", "-bf16"}) names.push_back(grain + rule + scale);
    }
  }
  return names;
}
INSTANTIATE_TEST_SUITE_P(All, AffineRoundTrip, testing::ValuesIn(all_variants()), [](const auto& param) {
  std::string name = param.param.substr(1);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(AffineValidate, RefusesWrongParts) {
  const EncodingInfo& info = get("int4-g32-asym-f16");
  const Tensor good = allocate(info, {4, 65});
  EXPECT_NO_THROW(validate(good.view()));
  TensorView view = good.view();
  view.n_parts = 2;
  EXPECT_THROW(validate(view), Error);
  view = good.view();
  view.parts[1].dtype = Dtype::kBf16;
  EXPECT_THROW(validate(view), Error);
  view = good.view();
  std::swap(view.parts[1], view.parts[2]);
  EXPECT_THROW(validate(view), Error);
  view = good.view();
  view.parts[0].bytes = view.parts[0].bytes.first(view.parts[0].bytes.size() - 1);
  EXPECT_THROW(validate(view), Error);
  view = good.view();
  view.shape = {4, 97};  // one group more
  EXPECT_THROW(validate(view), Error);
  EXPECT_THROW(row_bytes(info, 64), Error);
}

}  // namespace
}  // namespace nibble::encoding
