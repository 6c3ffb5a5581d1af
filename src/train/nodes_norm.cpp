#include <algorithm>

#include "train/nodes.h"
#include "train/row_work.h"

namespace nibble::train {

namespace {

// The numbers that a norm multiplies with: of every run the same, or each its own.
template <typename Real>
class Weights {
 public:
  Weights(const Tape<Real>& tape, Var weight, const NormShape& shape)
      : width_(shape.width),
        n_(weight ? tape.cols(weight) : shape.width),
        values_(static_cast<std::size_t>(n_), Real{1}) {
    if (!weight) return;
    const Real* from = tape.value(weight);
    for (std::int64_t i = 0; i < n_; ++i)
      values_[static_cast<std::size_t>(i)] = from[i] + static_cast<Real>(shape.plus_one ? 1 : 0);
  }
  std::int64_t size() const { return n_; }
  std::int64_t begin(std::int64_t run) const { return run * width_ % n_; }  // of a run's weights
  const Real* of(std::int64_t run) const { return values_.data() + begin(run); }

 private:
  std::int64_t width_, n_;
  std::vector<Real> values_;
};

}  // namespace

template <typename Real>
Var rms_norm(Tape<Real>& tape, Var x, Var weight, const NormShape& shape) {
  const std::int64_t width = shape.width, runs = tape.size(x) / width;
  const Var factors = tape.make(1, runs, {});  // 1 / root of the mean square
  const Var y = tape.make(tape.rows(x), tape.cols(x), {x, weight});
  auto weights = std::make_shared<const Weights<Real>>(tape, weight, shape);
  for_rows(tape, runs, width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t run = begin; run < end; ++run) {
      tape.mutable_value(factors)[run] =
          tape.ops().rms_norm(tape.value(x) + run * width, weights->of(run), static_cast<Real>(shape.eps), width,
                              tape.mutable_value(y) + run * width);
    }
  });
  tape.on_backward(y, [&tape, x, weight, y, factors, weights, width, runs] {
    const Real* dy = tape.gradient(y);
    std::vector<Real> ignored(static_cast<std::size_t>(tape.has_gradient(x) ? 0 : tape.size(x)));
    Real* dx = tape.has_gradient(x) ? tape.gradient(x) : ignored.data();
    std::vector<Real> unused(static_cast<std::size_t>(weights->size()));
    Real* dweight = tape.has_gradient(weight) ? tape.gradient(weight) : unused.data();
    sum_rows(tape, runs, weights->size(), dweight, [&](std::int64_t begin, std::int64_t end, Real* part) {
      for (std::int64_t run = begin; run < end; ++run)
        tape.ops().rms_norm_backward(tape.value(x) + run * width, weights->of(run), tape.value(factors)[run],
                                     dy + run * width, width, dx + run * width, part + weights->begin(run));
    });
  });
  return y;
}

template <typename Real>
Var layer_norm(Tape<Real>& tape, Var x, Var weight, Var bias, const NormShape& shape) {
  const std::int64_t width = shape.width, runs = tape.size(x) / width;
  const Var moments = tape.make(2, runs, {});  // 1 / standard deviation, mean
  const Var y = tape.make(tape.rows(x), tape.cols(x), {x, weight, bias});
  auto weights = std::make_shared<const Weights<Real>>(tape, weight, shape);
  for_rows(tape, runs, width, [&](std::int64_t begin, std::int64_t end) {
    Real* at = tape.mutable_value(moments);
    for (std::int64_t run = begin; run < end; ++run) {
      const Real* b = bias ? tape.value(bias) + weights->begin(run) : nullptr;
      at[run] = tape.ops().layer_norm(tape.value(x) + run * width, weights->of(run), b, static_cast<Real>(shape.eps),
                                      width, tape.mutable_value(y) + run * width, at + runs + run);
    }
  });
  tape.on_backward(y, [&tape, x, weight, bias, y, moments, weights, width, runs] {
    const Real* dy = tape.gradient(y);
    const Real* at = tape.value(moments);
    const std::int64_t n = weights->size();
    std::vector<Real> ignored(static_cast<std::size_t>(tape.has_gradient(x) ? 0 : tape.size(x)));
    Real* dx = tape.has_gradient(x) ? tape.gradient(x) : ignored.data();
    std::vector<Real> sums(static_cast<std::size_t>(2 * n));  // of the weight, of the bias
    sum_rows(tape, runs, 2 * n, sums.data(), [&](std::int64_t begin, std::int64_t end, Real* part) {
      for (std::int64_t run = begin; run < end; ++run) {
        Real* dweight = part + weights->begin(run);
        tape.ops().layer_norm_backward(tape.value(x) + run * width, weights->of(run), at[run], at[runs + run],
                                       dy + run * width, width, dx + run * width, dweight, dweight + n);
      }
    });
    if (tape.has_gradient(weight)) tape.ops().add_scaled(tape.gradient(weight), Real{1}, sums.data(), n);
    if (tape.has_gradient(bias)) tape.ops().add_scaled(tape.gradient(bias), Real{1}, sums.data() + n, n);
  });
  return y;
}

#define NIBBLE_INSTANTIATE(Real)                                  \
  template Var rms_norm(Tape<Real>&, Var, Var, const NormShape&); \
  template Var layer_norm(Tape<Real>&, Var, Var, Var, const NormShape&);
NIBBLE_INSTANTIATE(float)
NIBBLE_INSTANTIATE(double)
#undef NIBBLE_INSTANTIATE

}  // namespace nibble::train
