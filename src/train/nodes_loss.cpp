#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "train/nodes.h"
#include "train/row_work.h"

namespace nibble::train {

namespace {

// A loss of rows whose gradient is made at once, in place of the logits: `row(logits, i)` turns them into it and
// returns the row's cost; a row of weight 0 is left out.
template <typename Real, typename Row>
Var loss_of_rows(Tape<Real>& tape, Var logits, std::vector<Real> weights, Row&& row) {
  const std::int64_t n = tape.rows(logits), cols = tape.cols(logits);
  const Var loss = tape.make(1, 1, {logits});
  std::vector<double> costs(static_cast<std::size_t>(n));
  for_rows(tape, n, cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      Real* at = tape.mutable_value(logits) + i * cols;
      const Real weight = weights[static_cast<std::size_t>(i)];
      if (weight == Real{0}) {
        std::fill_n(at, cols, Real{0});
        continue;
      }
      costs[static_cast<std::size_t>(i)] = static_cast<double>(weight) * row(at, i);
      for (std::int64_t c = 0; c < cols; ++c) at[c] *= weight;
    }
  });
  double sum = 0;
  for (const double cost : costs) sum += cost;
  *tape.mutable_value(loss) = static_cast<Real>(sum);
  tape.on_backward(loss, [&tape, logits, loss, n, cols] {
    const Real factor = *tape.gradient(loss);
    bool adds = false;
    Real* to = tape.gradient(logits, adds);
    for_numbers(tape, n * cols, [&](std::int64_t begin, std::int64_t end) {
      const Real* from = tape.value(logits);
      for (std::int64_t i = begin; i < end; ++i) to[i] = (adds ? to[i] : Real{0}) + factor * from[i];
    });
  });
  return loss;
}

}  // namespace

template <typename Real>
Var cross_entropy(Tape<Real>& tape, Var logits, std::vector<token::TokenId> labels, std::vector<Real> weights) {
  const std::int64_t cols = tape.cols(logits);
  return loss_of_rows(tape, logits, std::move(weights), [&](Real* at, std::int64_t i) {
    const std::int64_t label = labels[static_cast<std::size_t>(i)];
    const Real of_label = at[label];
    const Real log_sum = tape.ops().softmax(at, cols, nullptr);
    at[label] -= Real{1};
    return static_cast<double>(log_sum - of_label);
  });
}

template <typename Real>
Var kl_divergence(Tape<Real>& tape, Var logits, Real* teacher, std::vector<Real> weights) {
  const std::int64_t cols = tape.cols(logits);
  return loss_of_rows(tape, logits, std::move(weights), [&](Real* at, std::int64_t i) {
    Real* other = teacher + i * cols;
    // sum p (t - q) + log_sum(q) - log_sum(t), of logits t and q
    const std::vector<Real> t(other, other + cols);
    const Real log_sum_t = tape.ops().softmax(other, cols, nullptr);
    double apart = 0;
    for (std::int64_t c = 0; c < cols; ++c)
      apart += static_cast<double>(other[c]) * static_cast<double>(t[static_cast<std::size_t>(c)] - at[c]);
    const Real log_sum = tape.ops().softmax(at, cols, nullptr);
    tape.ops().add_scaled(at, Real{-1}, other, cols);
    return apart + static_cast<double>(log_sum - log_sum_t);
  });
}

namespace {

// The largest difference of two runs of n numbers that is not among the share of those left out.
template <typename Real>
Real largest_counted(const Real* a, const Real* b, std::int64_t n, double left_out) {
  const auto largest = static_cast<std::int64_t>(left_out * static_cast<double>(n));
  if (largest <= 0) return std::numeric_limits<Real>::infinity();
  std::vector<Real> apart(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) apart[static_cast<std::size_t>(i)] = std::abs(a[i] - b[i]);
  const auto at = apart.end() - 1 - largest;
  std::nth_element(apart.begin(), at, apart.end());
  return *at;
}

}  // namespace

template <typename Real>
Var squared_error(Tape<Real>& tape, Var x, const Real* target, double weight, double left_out) {
  const std::int64_t n = tape.rows(x), cols = tape.cols(x);
  const Var loss = tape.make(1, 1, {x});
  const Real limit = largest_counted(tape.value(x), target, n * cols, left_out);
  std::vector<double> costs(static_cast<std::size_t>(n));
  for_rows(tape, n, cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      double sum = 0;
      for (std::int64_t c = i * cols; c < (i + 1) * cols; ++c) {
        const Real d = tape.value(x)[c] - target[c];
        if (!(std::abs(d) > limit)) sum += static_cast<double>(d) * static_cast<double>(d);
      }
      costs[static_cast<std::size_t>(i)] = sum;
    }
  });
  double sum = 0;
  for (const double cost : costs) sum += cost;
  *tape.mutable_value(loss) = static_cast<Real>(weight * sum);
  tape.on_backward(loss, [&tape, x, target, loss, weight, limit, n, cols] {
    const Real factor = *tape.gradient(loss) * static_cast<Real>(2 * weight);
    Real* dx = tape.gradient(x);
    for_numbers(tape, n * cols, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Real d = tape.value(x)[i] - target[i];
        if (!(std::abs(d) > limit)) dx[i] += factor * d;
      }
    });
  });
  return loss;
}

template <typename Real>
Var add_losses(Tape<Real>& tape, Var a, Var b) {
  const Var sum = tape.make(1, 1, {a, b});
  *tape.mutable_value(sum) = *tape.value(a) + *tape.value(b);
  tape.on_backward(sum, [&tape, a, b, sum] {
    for (const Var part : {a, b}) {
      if (tape.has_gradient(part)) *tape.gradient(part) += *tape.gradient(sum);
    }
  });
  return sum;
}

template <typename Real>
Var checkpoint(Tape<Real>& tape, Var x, std::function<Var(Tape<Real>&, Var)> body) {
  const std::int64_t rows = tape.rows(x), cols = tape.cols(x);
  Var y;
  {
    const std::unique_ptr<Tape<Real>> part = tape.nested();
    const Var out = body(*part, part->constant(rows, cols, tape.value(x)));
    y = tape.make(part->rows(out), part->cols(out), {x});
    std::copy_n(part->value(out), part->size(out), tape.mutable_value(y));
    tape.want_gradient(y);  // parameters inside may ask for one
  }
  tape.on_backward(y, [&tape, x, y, rows, cols, body = std::move(body)] {
    const std::unique_ptr<Tape<Real>> part = tape.nested();
    Real* dx = tape.has_gradient(x) ? tape.gradient(x) : nullptr;
    const Var out = body(*part, part->borrow(rows, cols, tape.value(x), dx));
    bool adds = false;
    std::copy_n(tape.gradient(y), part->size(out), part->gradient(out, adds));
    part->backward(out);
  });
  return y;
}

template <typename Real>
Var loss_in_parts(Tape<Real>& tape, Var x, std::int64_t most_rows,
                  const std::function<Var(Tape<Real>&, Var, std::int64_t begin)>& body) {
  const std::int64_t rows = tape.rows(x), cols = tape.cols(x);
  const Var loss = tape.make(1, 1, {x});
  Real* dx = tape.has_gradient(x) ? tape.gradient(x) : nullptr;
  double sum = 0;
  for (std::int64_t begin = 0; begin < rows; begin += most_rows) {
    const std::unique_ptr<Tape<Real>> part = tape.nested();
    const std::int64_t n = std::min(most_rows, rows - begin);
    Real* to = dx == nullptr ? nullptr : dx + begin * cols;
    const Var out = body(*part, part->borrow(n, cols, tape.value(x) + begin * cols, to), begin);
    sum += static_cast<double>(*part->value(out));
    if (part->has_gradient(out)) part->backward(out);
  }
  *tape.mutable_value(loss) = static_cast<Real>(sum);
  tape.on_backward(loss, [&tape, loss] {
    if (*tape.gradient(loss) != Real{1}) fail(ErrorCode::kInternal, "a loss in parts must be the root");
  });
  return loss;
}

#define NIBBLE_INSTANTIATE(Real)                                                                \
  template Var cross_entropy(Tape<Real>&, Var, std::vector<token::TokenId>, std::vector<Real>); \
  template Var kl_divergence(Tape<Real>&, Var, Real*, std::vector<Real>);                       \
  template Var squared_error(Tape<Real>&, Var, const Real*, double, double);                    \
  template Var add_losses(Tape<Real>&, Var, Var);                                               \
  template Var checkpoint(Tape<Real>&, Var, std::function<Var(Tape<Real>&, Var)>);              \
  template Var loss_in_parts(Tape<Real>&, Var, std::int64_t, const std::function<Var(Tape<Real>&, Var, std::int64_t)>&);
NIBBLE_INSTANTIATE(float)
NIBBLE_INSTANTIATE(double)
#undef NIBBLE_INSTANTIATE

}  // namespace nibble::train
