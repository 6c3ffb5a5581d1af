// Rounding with a way back against plain loops of the formulas, and the same bits on every instruction set.
#include "train/fake_quantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/rng.h"
#include "encoding/activation.h"
#include "tensor/half.h"

namespace nibble::train {
namespace {

struct Case {
  std::string name;
  CodeLevels codes;
  bool per_tensor = false, zeros = false, offsets = false, stays = false;  // stays: dequantize()
};

constexpr std::int64_t kRows = 7, kCols = 45;
const std::vector<float> kLevels = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

std::vector<Case> cases() {
  const CodeLevels four = {16, 0, 15, {}, false};  // a last group of 13
  CodeLevels whole_row = {kCols, -4, 3, {}, false}, lows = {15, 0, 3, {}, true}, levels = {15, 0, 15, kLevels, true};
  std::vector<Case> out = {{"asymmetric", four, false, true},
                           {"symmetric", {16, -8, 7, {}, false}},
                           {"channel", whole_row},
                           {"channel_with_zeros", whole_row, false, true},
                           {"tensor", whole_row, true},
                           {"tensor_with_zeros", whole_row, true, true},
                           {"lows", lows, false, true},
                           {"levels", levels}};
  const std::size_t n = out.size();
  for (std::size_t i = 0; i < n; ++i) {
    out.push_back(out[i]);
    out.back().name += "_offsets";
    out.back().offsets = true;
    out.push_back(out[i]);
    out.back().name += "_stays";
    out.back().stays = true;
  }
  return out;
}

// Numbers, and what is asked back of each kind.
template <typename Real>
struct Numbers {
  std::vector<Real> y, dw, dscales, dzeros, doffsets;
};

template <typename Real>
std::vector<Real> normals(std::uint64_t stream, std::int64_t n, double centre, double spread) {
  std::vector<Real> out;
  for (std::int64_t i = 0; i < n; ++i)
    out.push_back(static_cast<Real>(
        centre + spread * static_cast<double>(random_normal(31, stream, static_cast<std::uint64_t>(i)))));
  return out;
}

template <typename Real>
struct Inputs {
  explicit Inputs(const Case& of) : of_(of) {
    per_row = (kCols + of.codes.group - 1) / of.codes.group;
    const std::int64_t n_scales = of.per_tensor ? 1 : kRows * per_row;
    w = normals<Real>(1, kRows * kCols, 0, 1);
    const double size = of.codes.levels.empty() ? 0.2 : 0.02;
    scales = normals<Real>(2, n_scales, size, 0.1 * size);
    if (n_scales > 3) {
      scales[1] = 0;
      scales[2] = -scales[2];
    }
    // Zeros need not be codes, as those of block types are not.
    zeros = normals<Real>(3, of.zeros ? n_scales : 0, of.codes.lows ? 0.3 : 5, of.codes.lows ? 0.1 : 2);
    offsets = normals<Real>(4, of.offsets ? kRows * kCols : 0, 0, 0.3);
    for (std::int64_t i = 0; i < kRows * kCols; ++i) {
      const auto draw = random_bits(31, 6, static_cast<std::uint64_t>(i));
      levels.push_back(of.codes.levels.empty() ? static_cast<float>(of.codes.low + static_cast<double>(draw % 4))
                                               : kLevels[draw % kLevels.size()]);
    }
    dy = normals<Real>(5, kRows * kCols, 0, 1);
  }
  const Case& of_;
  std::int64_t per_row;
  std::vector<Real> w, scales, zeros, offsets, dy;
  std::vector<float> levels;
};

// The formulas of fake_quantize.h one number after another.
Numbers<double> expected(const Case& of, const Inputs<double>& in) {
  Numbers<double> out = {std::vector<double>(in.w.size()), std::vector<double>(in.w.size()),
                         std::vector<double>(in.scales.size()), std::vector<double>(in.zeros.size()),
                         std::vector<double>(in.offsets.size())};
  for (std::size_t i = 0; i < in.w.size(); ++i) {
    const std::int64_t row = static_cast<std::int64_t>(i) / kCols, col = static_cast<std::int64_t>(i) % kCols;
    const std::size_t g = of.per_tensor ? 0 : static_cast<std::size_t>(row * in.per_row + col / of.codes.group);
    const double s = in.scales[g], given = of.zeros ? in.zeros[g] : 0, dy = in.dy[i];
    const double low = of.codes.lows ? given : given * s;  // what is subtracted
    double ds = 0, dgiven = 0;
    double q = 0;
    bool inside = false;
    if (of.stays) {
      q = static_cast<double>(in.levels[i]);
    } else if (s == 0) {
      out.y[i] = -low;
      if (of.zeros && of.codes.lows) out.dzeros[g] -= dy;
      continue;
    } else {
      const double place = in.w[i] / s + (of.offsets ? in.offsets[i] : 0) + low / s;
      if (of.codes.levels.empty()) {
        q = std::clamp(std::nearbyint(place), of.codes.low, of.codes.high);
        inside = std::nearbyint(place) == q;
      } else {
        const auto nearest = std::ranges::min_element(
            kLevels, {}, [&](float level) { return std::abs(static_cast<double>(level) - place); });
        q = static_cast<double>(*nearest);
        inside = place >= static_cast<double>(kLevels.front()) && place <= static_cast<double>(kLevels.back());
      }
    }
    out.y[i] = s * q - low;
    if (inside) {  // y = w + s * (offset + what rounding added)
      out.dw[i] = dy;
      if (of.offsets) out.doffsets[i] = dy * s;
      ds = dy * (q - low / s - in.w[i] / s);
    } else {  // a code that does not move
      ds = dy * (of.codes.lows ? q : q - given);
      dgiven = of.codes.lows ? -dy : -dy * s;
    }
    out.dscales[g] += ds;
    if (of.zeros) out.dzeros[g] += dgiven;
  }
  return out;
}

template <typename Real>
Numbers<Real> computed(const Case& of, Inputs<Real>& in, const ops::TrainingOps<Real>& ops, int threads) {
  OwnedExecContext context(RunContext{.threads = threads});
  Tape<Real> tape(*context, ops, std::make_shared<BufferPool>());
  Numbers<Real> out = {{},
                       std::vector<Real>(in.w.size()),
                       std::vector<Real>(in.scales.size()),
                       std::vector<Real>(in.zeros.size()),
                       std::vector<Real>(in.offsets.size())};
  const auto n = static_cast<std::int64_t>(in.scales.size());
  const std::int64_t rows = of.per_tensor ? 1 : kRows;
  const Var scales = tape.borrow(rows, n / rows, in.scales.data(), out.dscales.data());
  const Var zeros = of.zeros ? tape.borrow(rows, n / rows, in.zeros.data(), out.dzeros.data()) : Var{};
  const Var offsets = of.offsets ? tape.borrow(kRows, kCols, in.offsets.data(), out.doffsets.data()) : Var{};
  const Var y = of.stays ? dequantize(tape, in.levels.data(), kRows, kCols, scales, zeros, of.codes)
                         : fake_quantize(tape, tape.borrow(kRows, kCols, in.w.data(), out.dw.data()), scales, zeros,
                                         offsets, of.codes);
  EXPECT_EQ(tape.rows(y), kRows);
  EXPECT_EQ(tape.cols(y), kCols);
  out.y.assign(tape.value(y), tape.value(y) + tape.size(y));
  std::ranges::copy(in.dy, tape.gradient(y));
  tape.backward(y);
  return out;
}

void expect_near(const std::vector<double>& got, const std::vector<double>& want, const char* what) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_NEAR(got[i], want[i], 1e-9 * (1 + std::abs(want[i]))) << what << " " << i;
}

class FakeQuantizeTest : public ::testing::TestWithParam<Case> {};

TEST_P(FakeQuantizeTest, IsTheFormula) {
  Inputs<double> in(GetParam());
  const Numbers<double> want = expected(GetParam(), in);
  const Numbers<double> got = computed(GetParam(), in, choose_training_ops<double>(Isa::kScalar), 2);
  expect_near(got.y, want.y, "value");
  expect_near(got.dw, want.dw, "gradient of weight");
  expect_near(got.dscales, want.dscales, "gradient of scale");
  expect_near(got.dzeros, want.dzeros, "gradient of zero");
  expect_near(got.doffsets, want.doffsets, "gradient of offset");
}

TEST_P(FakeQuantizeTest, HasTheSameBitsOnEverySet) {
  Inputs<float> in(GetParam());
  const Numbers<float> want = computed(GetParam(), in, ops::training_ops_scalar(), 1);
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (isa > machine_isa()) continue;
    const Numbers<float> got = computed(GetParam(), in, choose_training_ops<float>(isa), 3);
    EXPECT_EQ(got.y, want.y);
    EXPECT_EQ(got.dw, want.dw);
    EXPECT_EQ(got.dscales, want.dscales);
    EXPECT_EQ(got.dzeros, want.dzeros);
    EXPECT_EQ(got.doffsets, want.doffsets);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, FakeQuantizeTest, ::testing::ValuesIn(cases()),
                         [](const auto& of) { return of.param.name; });

// One value of a function of x, and its slope there as the way back has it.
class RoundingNodesTest : public ::testing::Test {
 protected:
  using Function = std::function<Var(Tape<double>&, Var)>;
  void apply(const std::vector<double>& x, const Function& function) {
    Tape<double> tape(*context_, Isa::kScalar);
    dx_.assign(x.size(), 0.0);
    const auto n = static_cast<std::int64_t>(x.size());
    const Var y = function(tape, tape.borrow(1, n, x.data(), dx_.data()));
    y_.assign(tape.value(y), tape.value(y) + tape.size(y));
    double* dy = tape.gradient(y);
    for (std::int64_t i = 0; i < tape.size(y); ++i) dy[i] = static_cast<double>(i + 1);
    tape.backward(y);
  }
  OwnedExecContext context_{RunContext{.threads = 1}};
  std::vector<double> y_, dx_;
};

TEST_F(RoundingNodesTest, RoundStraight) {
  apply({-3, -0.4, 1.6, 2.5, 3.4, 3.6}, [](auto& tape, Var x) { return round_straight(tape, x, 0, 3); });
  EXPECT_EQ(y_, (std::vector<double>{0, 0, 2, 2, 3, 3}));
  EXPECT_EQ(dx_, (std::vector<double>{0, 2, 3, 4, 5, 0}));
}

TEST_F(RoundingNodesTest, RoundTo) {
  const std::vector<double> x = {0.1, -0.2, 1e-6, 70000, 0};
  apply(x, [](auto& tape, Var v) { return round_to(tape, v, Dtype::kF16); });
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_EQ(y_[i], static_cast<double>(f16_to_f32(f32_to_f16(static_cast<float>(x[i])))));
  EXPECT_EQ(y_[3], 65504);  // and no infinity
  EXPECT_EQ(y_[4], 0);
  EXPECT_EQ(dx_, (std::vector<double>{1, 2, 3, 4, 5}));
  apply(x, [](auto& tape, Var v) { return round_to(tape, v, Dtype::kBf16); });
  for (std::size_t i = 0; i < x.size(); ++i)
    EXPECT_EQ(y_[i], static_cast<double>(bf16_to_f32(f32_to_bf16(static_cast<float>(x[i])))));
}

TEST_F(RoundingNodesTest, Spread) {
  static const std::vector<float> factors = {1, 2, 3, -1, 0, 4};
  apply({5, 7}, [](auto& tape, Var x) { return spread(tape, x, factors.data(), 3); });
  EXPECT_EQ(y_, (std::vector<double>{5, 10, 15, -7, 0, 28}));
  EXPECT_EQ(dx_, (std::vector<double>{1 + 4 + 9, -4 + 0 + 24}));
}

TEST_F(RoundingNodesTest, RoundInputs) {
  const std::vector<double> x = {0.3, -1, 0.504, 4, -2.6};
  InputRounding fixed;
  fixed.activation = &encoding::get_activation("int8-tensor");
  fixed.scale = 0.02f;  // up to 2.54
  apply(x, [&](auto& tape, Var v) { return round_inputs(tape, v, fixed); });
  const std::vector<double> held = {0.3, -1, 0.5, 2.54, -2.54};
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(y_[i], held[i], 1e-6);
  EXPECT_EQ(dx_, (std::vector<double>{1, 2, 3, 0, 0}));
  InputRounding own;
  own.activation = &encoding::get_activation("int8-token");
  apply(x, [&](auto& tape, Var v) { return round_inputs(tape, v, own); });
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(y_[i], x[i], 0.5 * 4 / 127 + 1e-6);
  EXPECT_NE(y_[0], x[0]);
  EXPECT_EQ(dx_, (std::vector<double>{1, 2, 3, 4, 5}));
}

}  // namespace
}  // namespace nibble::train
