#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/progress.h"
#include "base/rng.h"
#include "encoding/affine.h"
#include "method/quantizer.h"

namespace nibble::method {
namespace {

using encoding::EncodingInfo;

const std::vector<std::string> kBlockTypes = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0",   "q2_k",
                                              "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs"};

struct Matrix {
  std::int64_t rows = 0, cols = 0;
  std::vector<float> values;
};

Matrix random_matrix(std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  Matrix m{rows, cols, std::vector<float>(static_cast<std::size_t>(rows * cols))};
  for (std::size_t i = 0; i < m.values.size(); ++i) m.values[i] = 0.02f * random_normal(seed, 0, i);
  return m;
}

std::vector<float> random_importance(std::int64_t cols, std::uint64_t seed) {
  std::vector<float> out(static_cast<std::size_t>(cols));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = std::exp(1.5f * random_normal(seed, 1, i));
  return out;
}

class MatrixSource final : public RowSource {
 public:
  explicit MatrixSource(const Matrix& m) : m_(m) {}
  std::int64_t rows() const override { return m_.rows; }
  std::int64_t cols() const override { return m_.cols; }
  void read(std::int64_t begin, std::int64_t end, float* out) const override {
    std::copy_n(m_.values.data() + begin * m_.cols, (end - begin) * m_.cols, out);
  }

 private:
  const Matrix& m_;
};

struct Setting {
  std::string method;
  std::string type;
  std::vector<float> importance = {};
  Options options = {};
  int threads = 1;
  std::int64_t rows_per_call = 3;
};

std::uint64_t bytes_per_row(const TensorView& view, int part) {
  const bool shared = part > 0 && view.encoding->affine.granularity == encoding::Granularity::kTensor;
  return shared ? 0 : view.parts[static_cast<std::size_t>(part)].bytes.size() / static_cast<std::uint64_t>(view.rows());
}

Tensor quantize(const Matrix& m, const Setting& s) {
  const EncodingInfo& target = encoding::get(s.type);
  Tensor tensor = encoding::allocate(target, {m.rows, m.cols});
  Job job{.tensor = "w", .target = &target, .shape = {m.rows, m.cols}, .statistics = {}, .options = s.options};
  job.statistics.importance = s.importance;
  const auto quantizer = get(s.method).make(job);
  ThreadPool pool(s.threads);
  CancelToken cancel;
  NullProgress progress;
  ExecContext context{pool, cancel, progress};
  quantizer->prepare(context, MatrixSource(m));
  pool.parallel_for(m.rows, s.rows_per_call, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; row += s.rows_per_call) {
      RowsOut out;
      for (int i = 0; i < tensor.view().n_parts; ++i) {
        const Part& part = tensor.view().parts[static_cast<std::size_t>(i)];
        auto* base = const_cast<std::byte*>(part.bytes.data());
        out.parts[static_cast<std::size_t>(i)] =
            base + static_cast<std::uint64_t>(row) * bytes_per_row(tensor.view(), i);
      }
      quantizer->quantize_rows(m.values.data() + row * m.cols, row, std::min(s.rows_per_call, end - row), out);
    }
  });
  return tensor;
}

std::vector<float> decode(const Tensor& tensor) {
  std::vector<float> out(static_cast<std::size_t>(tensor.view().shape.elements()));
  encoding::validate(tensor.view());
  encoding::decode_rows(tensor.view(), 0, tensor.view().rows(), out.data());
  return out;
}

double weighted_error(const Matrix& m, const std::vector<float>& importance, const std::vector<float>& decoded) {
  double sum = 0;
  for (std::size_t i = 0; i < m.values.size(); ++i) {
    const double error = static_cast<double>(m.values[i]) - static_cast<double>(decoded[i]);
    sum += (importance.empty() ? 1.0 : static_cast<double>(importance[i % importance.size()])) * error * error;
  }
  return sum;
}

double error_of(const Matrix& m, const Setting& s) { return weighted_error(m, s.importance, decode(quantize(m, s))); }

std::vector<std::byte> bytes_of(const Tensor& tensor) {
  std::vector<std::byte> all;
  for (int i = 0; i < tensor.view().n_parts; ++i) {
    const auto part = tensor.view().parts[static_cast<std::size_t>(i)].bytes;
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

std::vector<Isa> machine_levels() {
  std::vector<Isa> levels;
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (isa <= machine_isa()) levels.push_back(isa);
  }
  return levels;
}

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "(no error)";
}

TEST(Registry, NamesAndDefaults) {
  EXPECT_EQ(get("rtn").name, "rtn");
  EXPECT_EQ(get("search").name, "search");
  EXPECT_THAT(message_of([] { get("gptq2"); }), testing::HasSubstr("rtn, search"));
  for (const std::string& type : kBlockTypes) EXPECT_EQ(default_for(encoding::get(type)).name, "search") << type;
  EXPECT_EQ(default_for(encoding::get("f16")).name, "rtn");
  EXPECT_EQ(default_for(encoding::get("int4-g128")).name, "rtn");
  EXPECT_FALSE(get("search").supports(encoding::get("f16")));
  EXPECT_FALSE(get("rtn").supports(encoding::get("iq2_xs"))) << "only read";
}

class BlockType : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(All, BlockType, testing::ValuesIn(kBlockTypes), [](const auto& i) { return i.param; });

TEST_P(BlockType, SearchIsNeverWorseThanRtnOnItsOwnMeasure) {
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    Matrix m = random_matrix(seed == 0 ? 1 : 7, 512, seed);
    if (seed == 2) m.values[777] = 3.0f;  // one outlier
    if (seed == 3) {                      // one sign
      for (float& v : m.values) v = std::fabs(v) + 0.05f;
    }
    for (const auto& importance : {std::vector<float>{}, random_importance(512, seed)}) {
      const double search = error_of(m, {.method = "search", .type = GetParam(), .importance = importance});
      const double rtn = error_of(m, {.method = "rtn", .type = GetParam(), .importance = importance});
      EXPECT_LE(search, rtn) << "seed " << seed << (importance.empty() ? "" : " with importance");
      EXPECT_GT(search, 0);
    }
  }
}

TEST_P(BlockType, SearchGivesTheSameBytesForEveryIsaAndThreadCount) {
  Matrix m = random_matrix(13, 768, 11);
  for (int i = 0; i < 700; ++i) m.values[static_cast<std::size_t>(i)] *= std::exp2(static_cast<float>(i % 30 - 20));
  std::fill_n(m.values.begin() + 5000, 300, 0.0f);
  for (const auto& importance : {std::vector<float>{}, random_importance(768, 3)}) {
    const auto expected = bytes_of(quantize(m, {.method = "search", .type = GetParam(), .importance = importance}));
    for (const Isa isa : machine_levels()) {
      for (const int threads : {1, 2}) {
        for (const std::int64_t rows : {1, 5}) {
          Setting s{.method = "search",
                    .type = GetParam(),
                    .importance = importance,
                    .threads = threads,
                    .rows_per_call = rows};
          s.options.isa = isa;
          EXPECT_EQ(bytes_of(quantize(m, s)), expected) << isa_name(isa) << ", " << threads << " threads";
        }
      }
    }
  }
}

TEST_P(BlockType, EveryMethodHandlesDegenerateRows) {
  for (const std::string method : {"rtn", "search"}) {
    Matrix m{6, 256, std::vector<float>(6 * 256)};
    for (std::size_t c = 0; c < 256; ++c) {
      m.values[256 + c] = 0.25f;  // constant
      m.values[512 + c] = -0.25f;
      m.values[768 + c] = c == 100 ? 1.0f : 0.0f;           // a single value
      m.values[1024 + c] = 1e-20f * static_cast<float>(c);  // below what f16 scales can hold
      m.values[1280 + c] = c % 2 == 0 ? 5.0f : -5.0f;
    }
    for (const auto& importance : {std::vector<float>{}, std::vector<float>(256, 0.0f), random_importance(256, 5)}) {
      const auto decoded = decode(quantize(m, {.method = method, .type = GetParam(), .importance = importance}));
      for (std::size_t c = 0; c < 256; ++c) {
        EXPECT_EQ(decoded[c], 0.0f) << method;
        EXPECT_NEAR(decoded[256 + c], 0.25f, 0.02f) << method << " column " << c;
        EXPECT_NEAR(decoded[512 + c], -0.25f, 0.02f) << method << " column " << c;
        EXPECT_NEAR(decoded[768 + c], c == 100 ? 1.0f : 0.0f, 0.11f) << method << " column " << c;
        EXPECT_NEAR(decoded[1024 + c], 0.0f, 1e-6f) << method << " column " << c;
        EXPECT_NEAR(std::fabs(decoded[1280 + c]), 5.0f, 1.7f) << method << " column " << c;
        EXPECT_EQ(std::signbit(decoded[1280 + c]), c % 2 == 1) << method << " column " << c;
      }
    }
  }
}

TEST_P(BlockType, ScaleInvariant) {
  // Powers of two change nothing but the exponents, as long as the scales stay normal in f16.
  const Matrix m = random_matrix(3, 256, 21);
  Matrix big = m;
  for (float& v : big.values) v *= 64.0f;
  const auto a = decode(quantize(m, {.method = "search", .type = GetParam()}));
  const auto b = decode(quantize(big, {.method = "search", .type = GetParam()}));
  double error_a = weighted_error(m, {}, a), error_b = weighted_error(big, {}, b) / 4096;
  EXPECT_NEAR(error_a, error_b, 0.02 * error_a);
}

// The best gain of what the search gives is 1: it neither shrinks nor swells the weights.
TEST_P(BlockType, SearchDoesNotShrink) {
  const Matrix m = random_matrix(8, 512, 31);
  const auto importance = random_importance(512, 8);
  const auto decoded = decode(quantize(m, {.method = "search", .type = GetParam(), .importance = importance}));
  double xy = 0, xx = 0;
  for (std::size_t i = 0; i < decoded.size(); ++i) {
    const double w = static_cast<double>(importance[i % 512]), x = static_cast<double>(m.values[i]);
    xy += w * x * static_cast<double>(decoded[i]);
    xx += w * x * x;
  }
  EXPECT_NEAR(xy / xx, 1.0, 5e-4);
}

TEST_P(BlockType, RulesRoundTheWayTheySay) {
  const Matrix m = random_matrix(4, 256, 41);
  auto rounded = [&](Rounding rounding, std::uint64_t seed) {
    Setting s{.method = "rtn", .type = GetParam()};
    s.options.rounding = rounding;
    s.options.seed = seed;
    return decode(quantize(m, s));
  };
  const auto floor = rounded(Rounding::kFloor, 0), ceil = rounded(Rounding::kCeil, 0);
  const auto one = rounded(Rounding::kStochastic, 1), again = rounded(Rounding::kStochastic, 1);
  const auto two = rounded(Rounding::kStochastic, 2);
  EXPECT_EQ(one, again);
  EXPECT_NE(one, two);
  double bias = 0, gap = 0;
  for (std::size_t i = 0; i < floor.size(); ++i) {
    const float lo = std::min(floor[i], ceil[i]), hi = std::max(floor[i], ceil[i]);  // a negative scale swaps them
    EXPECT_LE(lo, m.values[i] + 1e-6f);
    EXPECT_GE(hi, m.values[i] - 1e-6f);
    EXPECT_TRUE(one[i] == lo || one[i] == hi);
    bias += static_cast<double>(one[i] - m.values[i]);
    gap += static_cast<double>(hi - lo);
  }
  EXPECT_LT(std::fabs(bias), 0.08 * gap) << "stochastic rounding is unbiased";
}

TEST(Input, NamesTheWeightThatIsNotFinite) {
  for (const std::string type : {"f16", "q4_k", "q4_0", "int4-g128", "int8-tensor"}) {
    for (const std::string method : {"rtn", "search"}) {
      if (!get(method).supports(encoding::get(type))) continue;
      Matrix m = random_matrix(5, 256, 1);
      m.values[3 * 256 + 17] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_THAT(message_of([&] { quantize(m, {.method = method, .type = type}); }),
                  testing::HasSubstr("tensor 'w', row 3, column 17: the weight is NaN"));
      m.values[3 * 256 + 17] = -std::numeric_limits<float>::infinity();
      EXPECT_THAT(message_of([&] { quantize(m, {.method = method, .type = type}); }),
                  testing::HasSubstr("row 3, column 17: the weight is -infinity"));
    }
  }
  Matrix m = random_matrix(1, 256, 1);
  m.values[9] = 1e30f;
  EXPECT_THAT(message_of([&] { quantize(m, {.method = "search", .type = "q4_k"}); }),
              testing::HasSubstr("column 9: 1e+30 cannot be held in q4_k"));
}

TEST(Input, RefusesImportanceThatDoesNotFit) {
  const Matrix m = random_matrix(4, 256, 1);
  EXPECT_THAT(message_of([&] {
                quantize(m, {.method = "search", .type = "q4_k", .importance = std::vector<float>(100, 1.0f)});
              }),
              testing::HasSubstr("100 importance values"));
  std::vector<float> bad(256, 1.0f);
  bad[3] = -1;
  EXPECT_THAT(message_of([&] { quantize(m, {.method = "search", .type = "q4_k", .importance = bad}); }),
              testing::HasSubstr("column 3: the importance is -1"));
  EXPECT_THAT(message_of([&] { quantize(random_matrix(2, 100, 1), {.method = "search", .type = "q4_k"}); }),
              testing::HasSubstr("100 elements"));
}

// Each expert's rows follow that expert's importance.
TEST(Input, ImportancePerExpert) {
  const Matrix m = random_matrix(8, 256, 6);
  std::vector<float> two = random_importance(256, 1);
  const std::vector<float> first = two, second = random_importance(256, 2);
  two.insert(two.end(), second.begin(), second.end());
  const auto both = decode(quantize(m, {.method = "search", .type = "q3_k", .importance = two}));
  const auto a = decode(quantize(m, {.method = "search", .type = "q3_k", .importance = first}));
  const auto b = decode(quantize(m, {.method = "search", .type = "q3_k", .importance = second}));
  EXPECT_TRUE(std::equal(both.begin(), both.begin() + 4 * 256, a.begin()));
  EXPECT_TRUE(std::equal(both.begin() + 4 * 256, both.end(), b.begin() + 4 * 256));
  EXPECT_NE(a, b);
}

TEST(Rtn, BlockTypesAreTheReferenceEncode) {
  const Matrix m = random_matrix(3, 256, 2);
  for (const std::string& type : kBlockTypes) {
    const EncodingInfo& info = encoding::get(type);
    std::vector<std::byte> expected(encoding::tensor_bytes(info, {3, 256}));
    info.encode(m.values.data(), expected.data(), 3 * 256);
    EXPECT_EQ(bytes_of(quantize(m, {.method = "rtn", .type = type})), expected) << type;
  }
  Setting searched{.method = "rtn", .type = "q4_k"};
  searched.options.range = RangeRule::kMse;
  EXPECT_THAT(message_of([&] { quantize(m, searched); }), testing::HasSubstr("method 'search'"));
}

class AffineType : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(All, AffineType,
                         testing::Values("int8-tensor", "int8-tensor-asym", "int8-channel", "int4-channel-asym",
                                         "int4-g128", "int4-g128-asym", "int3-g40-asym-f16", "int2-g64-restricted",
                                         "int4-g32-awq-bf16", "int5-channel-ct"),
                         [](const auto& i) {
                           std::string name = i.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(AffineType, NearestIsWithinHalfAStep) {
  const Matrix m = random_matrix(70, 200, 3);
  const EncodingInfo& info = encoding::get(GetParam());
  const Tensor tensor = quantize(m, {.method = "rtn", .type = GetParam()});
  const auto decoded = decode(tensor);
  const Part* zeros = tensor.view().find(PartRole::kZeros);
  const std::byte* scales = tensor.view().part(PartRole::kScales).bytes.data();
  const std::int64_t width = encoding::group_columns(info.affine, m.cols),
                     groups = encoding::groups_per_row(info.affine, m.cols);
  for (std::int64_t i = 0; i < m.rows * m.cols; ++i) {
    const std::int64_t at =
        info.affine.granularity == encoding::Granularity::kTensor ? 0 : i / m.cols * groups + i % m.cols / width;
    const float scale =
        encoding::load_scale_zero(info.affine, scales, zeros != nullptr ? zeros->bytes.data() : nullptr, at).scale;
    EXPECT_GT(scale, 0.0f);
    // The whole-step conventions clip the end on one side by up to half a step more; rounded scales add a little.
    EXPECT_NEAR(decoded[static_cast<std::size_t>(i)], m.values[static_cast<std::size_t>(i)], scale * 1.02f);
  }
}

TEST_P(AffineType, SearchedRangeIsNeverWorse) {
  const Matrix m = random_matrix(9, 200, 4);
  for (const auto& importance : {std::vector<float>{}, random_importance(200, 4)}) {
    Setting s{.method = "rtn", .type = GetParam(), .importance = importance};
    const double minmax = error_of(m, s);
    s.options.range = RangeRule::kMse;
    const double searched = error_of(m, s);
    EXPECT_LE(searched, minmax * (1 + 1e-5));
    if (encoding::get(GetParam()).affine.bits <= 4) {
      EXPECT_LT(searched, minmax);
    }
  }
}

TEST_P(AffineType, SameBytesForEveryThreadCount) {
  const Matrix m = random_matrix(150, 72, 5);
  for (const RangeRule range : {RangeRule::kMinMax, RangeRule::kMse}) {
    for (const Rounding rounding : {Rounding::kNearest, Rounding::kStochastic}) {
      Setting s{.method = "rtn", .type = GetParam()};
      s.options.range = range;
      s.options.rounding = rounding;
      s.options.seed = 7;
      const auto expected = bytes_of(quantize(m, s));
      s.threads = 2;
      s.rows_per_call = 11;
      EXPECT_EQ(bytes_of(quantize(m, s)), expected);
    }
  }
}

TEST_P(AffineType, RoundingRules) {
  const Matrix m = random_matrix(5, 200, 6);
  Setting s{.method = "rtn", .type = GetParam()};
  const double nearest = error_of(m, s);
  for (const Rounding rounding : {Rounding::kFloor, Rounding::kCeil, Rounding::kStochastic}) {
    s.options.rounding = rounding;
    EXPECT_GT(error_of(m, s), 1.5 * nearest);
  }
}

TEST(Rtn, AffineGoldenSmall) {
  // By hand: asymmetric, 2 bits, range -1 .. 2: scale 1, zero 1.
  const Matrix m{1, 4, {-1.0f, 0.4f, 0.6f, 2.0f}};
  EXPECT_THAT(decode(quantize(m, {.method = "rtn", .type = "int2-channel-asym"})), testing::ElementsAre(-1, 0, 1, 2));
  Setting s{.method = "rtn", .type = "int2-channel-asym"};
  s.options.rounding = Rounding::kFloor;
  EXPECT_THAT(decode(quantize(m, s)), testing::ElementsAre(-1, 0, 0, 2));
  s.options.rounding = Rounding::kCeil;
  EXPECT_THAT(decode(quantize(m, s)), testing::ElementsAre(-1, 1, 1, 2));
}

}  // namespace
}  // namespace nibble::method
