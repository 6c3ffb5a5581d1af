// Training operations: every instruction set gives the scalar one's bits at every length, near what f64 gives, and
// writes nothing beyond its numbers.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/cpu.h"
#include "base/rng.h"
#include "ops/training_ops.h"

namespace nibble::ops {
namespace {

constexpr int kGuards = 20;  // numbers behind each result that must stay
constexpr float kGuard = 77;

// Every operation on the same random numbers, of n numbers each.
template <typename Real>
class Outputs {
 public:
  Outputs(const TrainingOps<Real>& ops, std::int64_t n) : ops_(ops), n_(n) {
    norms();
    products();
    activations();
    softmaxes();
    roundings();
  }
  using Named = std::pair<std::string, std::vector<Real>>;
  const std::vector<Named>& all() const { return all_; }

 private:
  std::vector<Real> normal(std::uint64_t stream, double spread = 1, std::int64_t n = -1) const {
    std::vector<Real> out;
    for (std::int64_t i = 0; i < (n < 0 ? n_ : n); ++i)
      out.push_back(
          static_cast<Real>(static_cast<float>(spread) * random_normal(41, stream, static_cast<std::uint64_t>(i))));
    return out;
  }
  // `values` with guards, given to a function that changes them.
  template <typename Change>
  void keep(const std::string& name, std::vector<Real> values, Change&& change) {
    const std::size_t n = values.size();
    values.resize(n + kGuards, Real{kGuard});
    change(values.data());
    for (std::size_t i = n; i < values.size(); ++i) EXPECT_EQ(values[i], Real{kGuard}) << name << " of " << n_;
    values.resize(n);
    all_.emplace_back(name, std::move(values));
  }
  void keep(const std::string& name, Real value) { all_.emplace_back(name, std::vector<Real>{value}); }

  void norms() {
    const auto x = normal(1, 3), weight = normal(2), bias = normal(3), dy = normal(4), before = normal(5);
    const Real eps = Real(1e-5);
    Real r = 0, mean = 0;
    keep("rms_norm", x, [&](Real* y) { r = ops_.rms_norm(x.data(), weight.data(), eps, n_, y); });
    keep("rms_norm r", r);
    keep("rms_norm_backward dx", before, [&](Real* dx) {
      keep("rms_norm_backward dweight", before,
           [&](Real* dweight) { ops_.rms_norm_backward(x.data(), weight.data(), r, dy.data(), n_, dx, dweight); });
    });
    for (const Real* b : {bias.data(), static_cast<const Real*>(nullptr)})
      keep("layer_norm", x, [&](Real* y) { r = ops_.layer_norm(x.data(), weight.data(), b, eps, n_, y, &mean); });
    keep("layer_norm r", n_ > 1 ? r : Real{0});  // of one number it is the root of 1 / eps
    keep("layer_norm mean", mean);
    r = Real(0.7);
    keep("layer_norm_backward dx", before, [&](Real* dx) {
      keep("layer_norm_backward dweight", before, [&](Real* dweight) {
        keep("layer_norm_backward dbias", before, [&](Real* dbias) {
          ops_.layer_norm_backward(x.data(), weight.data(), r, mean, dy.data(), n_, dx, dweight, dbias);
        });
      });
    });
  }

  void products() {
    const auto x = normal(6), w = normal(7), y = normal(8), cos = normal(9), sin = normal(10);
    const auto pairs = normal(11, 1, 2 * n_), before = normal(12, 1, 2 * n_);
    for (const bool add : {false, true})
      keep("rotate", before, [&](Real* out) { ops_.rotate(pairs.data(), cos.data(), sin.data(), n_, add, out); });
    keep("rotate in place", pairs, [&](Real* out) { ops_.rotate(out, cos.data(), sin.data(), n_, false, out); });
    keep("add_scaled", y, [&](Real* out) { ops_.add_scaled(out, Real(0.3f), x.data(), n_); });
    keep("multiply", y, [&](Real* out) { ops_.multiply(x.data(), w.data(), n_, out); });
    keep("add_product", y, [&](Real* out) { ops_.add_product(x.data(), w.data(), n_, out); });
    keep("dot", ops_.dot(x.data(), w.data(), n_));
  }

  void activations() {
    const auto x = normal(13, 4), up = normal(14, 4), dy = normal(15), before = normal(16);
    for (int kind = 0; kind < kActivations; ++kind) {
      const std::string name = std::to_string(kind);
      keep("activate " + name, x, [&](Real* y) { ops_.activate[kind](x.data(), n_, y); });
      keep("activate_backward " + name, before,
           [&](Real* dx) { ops_.activate_backward[kind](x.data(), dy.data(), n_, dx); });
      keep("gate " + name, x, [&](Real* y) { ops_.gate[kind](x.data(), up.data(), n_, y); });
      keep("gate_backward " + name, before, [&](Real* dgate) {
        keep("gate_backward up " + name, before,
             [&](Real* dup) { ops_.gate_backward[kind](x.data(), up.data(), dy.data(), n_, dgate, dup); });
      });
    }
  }

  void softmaxes() {
    const auto x = normal(17, 5), p = normal(18), dy = normal(19), before = normal(20);
    const Real sink = Real(1.5f);
    for (const Real* at : {&sink, static_cast<const Real*>(nullptr)}) {
      Real log_sum = 0;
      keep("softmax", x, [&](Real* y) { log_sum = ops_.softmax(y, n_, at); });
      keep("softmax log", log_sum);
    }
    keep("exp_minus", x, [&](Real* y) { ops_.exp_minus(y, Real(3), n_); });
    keep("softmax_backward", before, [&](Real* dp) { ops_.softmax_backward(p.data(), Real(0.25f), n_, dp); });
    keep("softcap", x, [&](Real* y) { ops_.softcap(x.data(), Real(3), n_, y); });
    for (const bool in_place : {false, true})
      keep("softcap_backward", before,
           [&](Real* dx) { ops_.softcap_backward(p.data(), Real(3), dy.data(), n_, in_place, dx); });
  }

  void roundings() {
    static constexpr float kLevels[] = {-12, -5, -1, 0, 2, 7};
    const auto w = normal(21), offset = normal(22, 0.2), dy = normal(23), before = normal(24);
    const Real s = Real(0.171f), z = Real(3.3f);
    for (const Real* at : {offset.data(), static_cast<const Real*>(nullptr)}) {
      keep("round_group", w, [&](Real* y) { ops_.round_group(w.data(), at, s, z, Real(0), Real(7), n_, y); });
      keep("round_to_levels", w, [&](Real* y) { ops_.round_to_levels(w.data(), at, s, kLevels, 6, n_, y); });
      Real sums[3] = {1, 2, 3};
      keep("round_group_backward", before, [&](Real* dw) {
        keep("round_group_backward offset", before, [&](Real* doffset) {
          ops_.round_group_backward(w.data(), at, s, z, Real(0), Real(7), dy.data(), n_, dw, doffset, &sums[0],
                                    &sums[1]);
        });
      });
      keep("round_to_levels_backward", before, [&](Real* dw) {
        keep("round_to_levels_backward offset", before, [&](Real* doffset) {
          ops_.round_to_levels_backward(w.data(), at, s, kLevels, 6, dy.data(), n_, dw, doffset, &sums[2]);
        });
      });
      for (const Real sum : sums) keep("round sums", sum);
    }
    Real alone[3] = {};  // nobody asks for the rest
    ops_.round_group_backward(w.data(), nullptr, s, z, Real(0), Real(7), dy.data(), n_, nullptr, nullptr, &alone[0],
                              &alone[1]);
    ops_.round_to_levels_backward(w.data(), nullptr, s, kLevels, 6, dy.data(), n_, nullptr, nullptr, &alone[2]);
    for (const Real sum : alone) keep("round sums alone", sum);
  }

  const TrainingOps<Real>& ops_;
  std::int64_t n_;
  std::vector<Named> all_;
};

class TrainingOpsTest : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(TrainingOpsTest, EverySetGivesTheSameBits) {
  const Outputs<float> scalar(training_ops_scalar(), GetParam());
  std::vector<const TrainingOps<float>*> sets;
  if (machine_isa() >= Isa::kAvx2) sets.push_back(&training_ops_avx2());
  if (machine_isa() >= Isa::kAvx512) sets.push_back(&training_ops_avx512());
  for (const TrainingOps<float>* set : sets) {
    const Outputs<float> other(*set, GetParam());
    ASSERT_EQ(other.all().size(), scalar.all().size());
    for (std::size_t i = 0; i < other.all().size(); ++i) {
      const auto& [name, values] = other.all()[i];
      const std::vector<float>& expected = scalar.all()[i].second;
      ASSERT_EQ(values.size(), expected.size());
      EXPECT_EQ(std::memcmp(values.data(), expected.data(), values.size() * sizeof(float)), 0) << name;
    }
  }
}

TEST_P(TrainingOpsTest, IsNearWhatDoubleGives) {
  const Outputs<float> scalar(training_ops_scalar(), GetParam());
  const Outputs<double> exact(training_ops_double(), GetParam());
  ASSERT_EQ(exact.all().size(), scalar.all().size());
  for (std::size_t i = 0; i < exact.all().size(); ++i) {
    const auto& [name, expected] = exact.all()[i];
    const std::vector<float>& values = scalar.all()[i].second;
    for (std::size_t k = 0; k < values.size(); ++k)
      EXPECT_NEAR(static_cast<double>(values[k]), expected[k], 2e-5 * (1 + std::abs(expected[k]))) << name << " " << k;
  }
}

INSTANTIATE_TEST_SUITE_P(Lengths, TrainingOpsTest, ::testing::Values(1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 47, 100));

}  // namespace
}  // namespace nibble::ops
