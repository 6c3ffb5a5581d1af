// Every operation's gradient against central differences: in f64 to 1e-6, in f32 to 1e-3 of the gradient's size.
#include "train/nodes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"
#include "train/decoder_graph.h"

namespace nibble::train {
namespace {

constexpr double kStep64 = 1e-5, kTolerance64 = 1e-6, kStep32 = 1e-2, kTolerance32 = 1e-3;

struct Input {
  std::int64_t rows, cols;
  double center = 0, spread = 1;  // numbers are normal about the center
};

// A function of some inputs, weighed with fixed random numbers to one number; its gradients and those of differences.
template <typename Real>
class Checker {
 public:
  using Function = std::function<Var(Tape<Real>&, const std::vector<Var>&)>;
  Checker(const std::vector<Input>& inputs, Function function) : function_(std::move(function)) {
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      parameters_.emplace_back("x", inputs[i].rows, inputs[i].cols);
      for (std::int64_t k = 0; k < parameters_[i].size(); ++k) {
        const auto normal = static_cast<double>(random_normal(7, i, static_cast<std::uint64_t>(k)));
        parameters_[i].values()[k] = static_cast<Real>(inputs[i].center + inputs[i].spread * normal);
      }
    }
  }

  double value(bool back) {
    Tape<Real> tape(context_, best_isa());
    std::vector<Var> vars;
    for (auto& parameter : parameters_) {
      parameter.zero_gradient();
      vars.push_back(tape.parameter(parameter));
    }
    const Var out = function_(tape, vars);
    double sum = 0;
    std::vector<Real> weights(static_cast<std::size_t>(tape.size(out)), Real{1});
    for (std::size_t k = 0; k < weights.size(); ++k) {
      if (weights.size() > 1) weights[k] = static_cast<Real>(random_normal(8, 0, k));
      sum += static_cast<double>(weights[k]) * static_cast<double>(tape.value(out)[k]);
    }
    if (!back) return sum;
    bool adds = false;
    std::copy(weights.begin(), weights.end(), tape.gradient(out, adds));
    tape.backward(out);
    return sum;
  }

  // The difference of all gradients from central differences, relative to their size.
  double error(double step) {
    value(true);
    double square = 0, apart = 0;
    std::vector<std::vector<Real>> gradients;
    for (auto& parameter : parameters_)
      gradients.emplace_back(parameter.gradients(), parameter.gradients() + parameter.size());
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      BasicParameter<Real>& parameter = parameters_[i];
      for (std::int64_t k = 0; k < parameter.size(); ++k) {
        const Real at = parameter.values()[k];
        parameter.values()[k] = at + static_cast<Real>(step);
        const double above = value(false);
        parameter.values()[k] = at - static_cast<Real>(step);
        const double below = value(false);
        parameter.values()[k] = at;
        const double numeric = (above - below) / (2 * step);
        square += numeric * numeric;
        apart += std::pow(numeric - static_cast<double>(gradients[i][static_cast<std::size_t>(k)]), 2);
      }
    }
    EXPECT_GT(square, 0);
    return std::sqrt(apart / square);
  }

 private:
  Function function_;
  std::vector<BasicParameter<Real>> parameters_;
  ThreadPool pool_{2};
  CancelToken cancel_;
  NullProgress progress_;
  ExecContext context_{pool_, cancel_, progress_};
};

// make: the function for a type of numbers.
template <typename Make>
void check(const std::vector<Input>& inputs, Make&& make, double step32 = kStep32) {
  EXPECT_LT((Checker<double>(inputs, make(double{})).error(kStep64)), kTolerance64) << "f64";
  EXPECT_LT((Checker<float>(inputs, make(float{})).error(step32)), kTolerance32) << "f32";
}

#define FUNCTION(body)                                                                \
  []([[maybe_unused]] auto zero) {                                                    \
    using Real = decltype(zero);                                                      \
    return [=](Tape<Real>& tape, const std::vector<Var>& in) -> Var { return body; }; \
  }

TEST(NodesTest, Products) {
  check({{5, 7}, {6, 7}}, FUNCTION(matmul(tape, in[0], in[1])));
  check({{5, 7}, {1, 7}}, FUNCTION(add_bias(tape, in[0], in[1])));
  check({{4, 7}, {4, 7}}, FUNCTION(combine(tape, 0.5, in[0], -2, in[1])));
  check({{4, 7}}, FUNCTION(add(tape, in[0], in[0])));
  check({{4, 7}}, FUNCTION(scale(tape, in[0], 3)));
  check({{4, 7}, {4, 1}}, FUNCTION(multiply_rows(tape, in[0], in[1])));
  check({{4, 70}}, FUNCTION(dropout(tape, in[0], 0.3, 1, 2)));
}

TEST(NodesTest, Rows) {
  check({{5, 9}}, FUNCTION(columns(tape, in[0], 2, 4)));
  check({{5, 3}, {5, 4}}, FUNCTION(beside<Real>(tape, in)));
  check({{5, 3}, {2, 3}}, FUNCTION(stack<Real>(tape, in)));
  check({{5, 4}}, FUNCTION(reshape(tape, in[0], 10, 2)));
  check({{5, 4}}, FUNCTION(row_range(tape, in[0], 1, 3)));
  check({{5, 4}}, FUNCTION(gather_rows(tape, in[0], {3, 0, 3})));
  check({{3, 4}}, FUNCTION(scatter_rows(tape, in[0], {3, 0, 3}, 5)));
  check({{6, 4}}, FUNCTION(embedding(tape, in[0], {5, 1, 5, 0})));
  static const linalg::Mixer mixer(8, 0);
  Checker<float> turned({{3, 16}},
                        [](Tape<float>& tape, const std::vector<Var>& in) { return mix(tape, in[0], mixer); });
  EXPECT_LT(turned.error(kStep32), kTolerance32);
}

TEST(NodesTest, Norms) {
  check({{3, 20}, {1, 20, 1, 0.3}}, FUNCTION(rms_norm(tape, in[0], in[1], {20, 1e-5, false})));
  check({{3, 20}, {1, 20, 0, 0.3}}, FUNCTION(rms_norm(tape, in[0], in[1], {20, 1e-5, true})));
  check({{3, 40}, {1, 20, 1, 0.3}}, FUNCTION(rms_norm(tape, in[0], in[1], {20, 1e-5, false})));
  check({{3, 40}, {1, 40, 1, 0.3}}, FUNCTION(rms_norm(tape, in[0], in[1], {20, 1e-5, false})));
  check({{3, 40}}, FUNCTION(rms_norm(tape, in[0], Var{}, {20, 1e-5, false})));
  check({{3, 20}, {1, 20, 1, 0.3}, {1, 20}}, FUNCTION(layer_norm(tape, in[0], in[1], in[2], {20, 1e-5, false})));
  check({{3, 40}, {1, 40, 1, 0.3}}, FUNCTION(layer_norm(tape, in[0], in[1], Var{}, {20, 1e-5, false})));
}

TEST(NodesTest, Activations) {
  for (int kind = 0; kind < ops::kActivations; ++kind) {
    SCOPED_TRACE(kind);
    const auto activation = static_cast<ops::Activation>(kind);
    const auto one = [activation](auto zero) {
      using Real = decltype(zero);
      return [activation](Tape<Real>& tape, const std::vector<Var>& in) { return activate(tape, in[0], activation); };
    };
    const auto two = [activation](auto zero) {
      using Real = decltype(zero);
      return [activation](Tape<Real>& tape, const std::vector<Var>& in) {
        return train::gate(tape, in[0], in[1], activation);
      };
    };
    // About a place without kinks, and of the clamped ones beyond their limits.
    const bool rectified = activation == ops::Activation::kRelu || activation == ops::Activation::kRelu2;
    for (const double center : {-3.0, 3.0}) {
      if (rectified && center < 0) continue;  // 0 there
      check({{2, 20, center, 0.7}}, one);
      check({{2, 20, center, 0.7}, {2, 20, center, 0.7}}, two);
    }
    if (activation == ops::Activation::kClampedSwish) {
      check({{2, 20, 0, 1}, {2, 20, 12, 1}}, two);
    } else if (activation != ops::Activation::kRelu) {
      check({{2, 20}}, one, 1e-3);
    }
  }
  check({{3, 20, 0, 3}}, FUNCTION(softcap(tape, in[0], 2)));
  check({{3, 20, 0, 3}}, FUNCTION(sigmoid(tape, in[0])));
}

template <typename Real>
const RopeTable<Real>& some_table() {
  static const RopeTable<Real> table = [] {
    RopeTable<Real> made{3, 4, {}, {}};
    for (int i = 0; i < 12; ++i) {
      made.cos.push_back(static_cast<Real>(std::cos(0.3 * i)));
      made.sin.push_back(static_cast<Real>(std::sin(0.3 * i)));
    }
    return made;
  }();
  return table;
}

TEST(NodesTest, Rope) { check({{6, 20}}, FUNCTION(rope(tape, in[0], 10, some_table<Real>()))); }

AttentionShape attention_shape(std::int64_t window = 0, bool chunked = false, double cap = 0) {
  AttentionShape shape;
  shape.length = 70;  // more than one tile
  shape.heads = 4;
  shape.kv_heads = 2;
  shape.dim = 3;
  shape.value_dim = 2;
  shape.scale = 0.7;
  shape.window = window;
  shape.chunked = chunked;
  shape.softcap = cap;
  return shape;
}

TEST(NodesTest, Attention) {
  const std::vector<Input> plain = {{70, 12}, {70, 6}, {70, 4}};
  check(plain, FUNCTION(attention(tape, in[0], in[1], in[2], Var{}, attention_shape())));
  check(plain, FUNCTION(attention(tape, in[0], in[1], in[2], Var{}, attention_shape(9))));
  check(plain, FUNCTION(attention(tape, in[0], in[1], in[2], Var{}, attention_shape(13, true))));
  check(plain, FUNCTION(attention(tape, in[0], in[1], in[2], Var{}, attention_shape(0, false, 1.5))));
  const std::vector<Input> sinks = {{70, 12}, {70, 6}, {70, 4}, {1, 4}};
  check(sinks, FUNCTION(attention(tape, in[0], in[1], in[2], in[3], attention_shape())));
  static const std::vector<float> slopes = {0.5f, 0.25f, 0.125f, 0.0625f};
  static AttentionShape with_slopes = attention_shape();
  with_slopes.slopes = slopes;
  check(plain, FUNCTION(attention(tape, in[0], in[1], in[2], Var{}, with_slopes)));
  with_slopes.softcap = 1.5;
  check(plain, FUNCTION(attention(tape, in[0], in[1], in[2], Var{}, with_slopes)));
}

TEST(NodesTest, Experts) {
  static model::ExpertSpec spec;
  static const std::vector<float> bias = {0.1f, -0.2f, 0.3f, 0, 0.05f};
  for (const auto scoring : {model::Scoring::kSoftmax, model::Scoring::kSigmoid}) {
    for (const bool renormalize : {true, false}) {
      spec = {};
      spec.count = 5;
      spec.used = 2;
      spec.scoring = scoring;
      spec.renormalize = renormalize;
      spec.scale = 1.5;
      // Far enough apart that a step changes no choice.
      check({{4, 5, 0, 2}}, FUNCTION(route<Real>(tape, in[0], spec, bias).weights), 1e-3);
    }
  }
}

template <typename Real>
const Real* some_target() {
  static const std::vector<Real> target(36, static_cast<Real>(0.3));
  return target.data();
}

TEST(NodesTest, Losses) {
  check({{4, 9}}, FUNCTION(cross_entropy<Real>(tape, scale(tape, in[0], 1), {3, 0, 8, 1}, {1, 0, 0.5, 2})));
  check({{4, 9}}, FUNCTION(squared_error<Real>(tape, in[0], some_target<Real>(), 0.25)));
  check({{4, 9}}, FUNCTION(squared_error<Real>(tape, in[0], some_target<Real>(), 0.25, 0.2)));
  const auto divergence = [](auto zero) {
    using Real = decltype(zero);
    return [](Tape<Real>& tape, const std::vector<Var>& in) {
      std::vector<Real> teacher;
      for (std::uint64_t i = 0; i < 36; ++i) teacher.push_back(static_cast<Real>(random_normal(5, 5, i)));
      return kl_divergence<Real>(tape, scale(tape, in[0], 1), teacher.data(), {1, 0, 0.5, 2});
    };
  };
  check({{4, 9}}, divergence);
  check({{4, 9}},
        FUNCTION(add_losses(tape, cross_entropy<Real>(tape, scale(tape, in[0], 1), {3, 0, 8, 1}, {1, 0, 1, 2}),
                            squared_error<Real>(tape, in[0], some_target<Real>(), 0.25))));
}

TEST(NodesTest, PartsGiveWhatTheWholeGives) {
  const auto in_parts = [](auto zero) {
    using Real = decltype(zero);
    return [](Tape<Real>& tape, const std::vector<Var>& in) {
      const std::function<Var(Tape<Real>&, Var, std::int64_t)> body = [&](Tape<Real>& part, Var x, std::int64_t begin) {
        const std::vector<token::TokenId> labels = {3, 0, 8, 1, 2};
        const auto n = static_cast<std::size_t>(part.rows(x)), at = static_cast<std::size_t>(begin);
        const Var w = part.borrow(9, 6, tape.value(in[1]), tape.gradient(in[1]));
        return cross_entropy<Real>(part, matmul(part, x, w),
                                   {labels.begin() + begin, labels.begin() + static_cast<std::ptrdiff_t>(at + n)},
                                   std::vector<Real>(n, Real{1}));
      };
      const Var x = checkpoint<Real>(tape, in[0],
                                     [](Tape<Real>& part, Var v) { return activate(part, v, ops::Activation::kSilu); });
      return loss_in_parts<Real>(tape, x, 2, body);
    };
  };
  check({{5, 6}, {9, 6}}, in_parts);
}

}  // namespace
}  // namespace nibble::train
