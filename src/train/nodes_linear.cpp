#include <cstring>
#include <type_traits>

#include "base/error.h"
#include "base/rng.h"
#include "linalg/gemm.h"
#include "train/nodes.h"
#include "train/row_work.h"

namespace nibble::train {

using linalg::Lies;

namespace {

template <typename Real>
void multiply(Tape<Real>& tape, Lies a_lies, Lies b_lies, std::int64_t m, std::int64_t n, std::int64_t k, const Real* a,
              std::int64_t lda, const Real* b, std::int64_t ldb, bool adds, Real* c, std::int64_t ldc) {
  if constexpr (std::is_same_v<Real, float>) {
    linalg::multiply(tape.context(), tape.precision(), a_lies, b_lies, m, n, k, a, lda, b, ldb, adds, c, ldc);
  } else {
    linalg::multiply(tape.context(), a_lies, b_lies, m, n, k, Real{1}, a, lda, b, ldb, Real(adds ? 1 : 0), c, ldc);
  }
}

}  // namespace

template <typename Real>
Var matmul(Tape<Real>& tape, Var x, Var w) {
  const std::int64_t n = tape.rows(x), in = tape.cols(x), out = tape.rows(w);
  if (tape.cols(w) != in) fail(ErrorCode::kInternal, "a product of {} columns with {}", in, tape.cols(w));
  const Var y = tape.make(n, out, {x, w});
  multiply(tape, Lies::kAsIs, Lies::kTransposed, n, out, in, tape.value(x), in, tape.value(w), in, false,
           tape.mutable_value(y), out);
  tape.on_backward(y, [&tape, x, w, y, n, in, out] {
    const Real* dy = tape.gradient(y);
    bool adds = false;
    if (tape.has_gradient(x)) {
      Real* dx = tape.gradient(x, adds);
      multiply(tape, Lies::kAsIs, Lies::kAsIs, n, in, out, dy, out, tape.value(w), in, adds, dx, in);
    }
    if (tape.has_gradient(w)) {
      Real* dw = tape.gradient(w, adds);
      multiply(tape, Lies::kTransposed, Lies::kAsIs, out, in, n, dy, out, tape.value(x), in, adds, dw, in);
    }
  });
  return y;
}

template <typename Real>
Var add_bias(Tape<Real>& tape, Var x, Var bias) {
  const std::int64_t n = tape.rows(x), cols = tape.cols(x);
  const Var y = tape.make(n, cols, {x, bias});
  for_rows(tape, n, cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      Real* to = tape.mutable_value(y) + row * cols;
      std::memcpy(to, tape.value(x) + row * cols, static_cast<std::size_t>(cols) * sizeof(Real));
      tape.ops().add_scaled(to, Real{1}, tape.value(bias), cols);
    }
  });
  tape.on_backward(y, [&tape, x, bias, y, n, cols] {
    const Real* dy = tape.gradient(y);
    if (tape.has_gradient(x)) {
      Real* dx = tape.gradient(x);
      for_numbers(tape, n * cols, [&](std::int64_t begin, std::int64_t end) {
        tape.ops().add_scaled(dx + begin, Real{1}, dy + begin, end - begin);
      });
    }
    if (!tape.has_gradient(bias)) return;
    sum_rows(tape, n, cols, tape.gradient(bias), [&](std::int64_t begin, std::int64_t end, Real* part) {
      for (std::int64_t row = begin; row < end; ++row) tape.ops().add_scaled(part, Real{1}, dy + row * cols, cols);
    });
  });
  return y;
}

template <typename Real>
Var combine(Tape<Real>& tape, double a, Var x, double b, Var y) {
  const std::int64_t n = tape.size(x);
  const Var sum = tape.make(tape.rows(x), tape.cols(x), {x, y});
  for_numbers(tape, n, [&](std::int64_t begin, std::int64_t end) {
    Real* to = tape.mutable_value(sum);
    const Real *from_x = tape.value(x), *from_y = tape.value(y);
    for (std::int64_t i = begin; i < end; ++i)
      to[i] = static_cast<Real>(a) * from_x[i] + static_cast<Real>(b) * from_y[i];
  });
  tape.on_backward(sum, [&tape, a, b, x, y, sum, n] {
    const Real* d = tape.gradient(sum);
    for (const auto& [to, factor] : {std::pair{x, a}, std::pair{y, b}}) {
      if (!tape.has_gradient(to)) continue;
      Real* gradient = tape.gradient(to);
      const auto f = static_cast<Real>(factor);
      for_numbers(tape, n, [&](std::int64_t begin, std::int64_t end) {
        tape.ops().add_scaled(gradient + begin, f, d + begin, end - begin);
      });
    }
  });
  return sum;
}

template <typename Real>
Var add(Tape<Real>& tape, Var a, Var b) {
  return combine(tape, 1, a, 1, b);
}

template <typename Real>
Var scale_rows(Tape<Real>& tape, Var x, std::vector<Real> factors) {
  const std::int64_t n = tape.rows(x), cols = tape.cols(x);
  const Var y = tape.make(n, cols, {x});
  for_rows(tape, n, cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * cols; i < end * cols; ++i)
      tape.mutable_value(y)[i] = tape.value(x)[i] * factors[static_cast<std::size_t>(i / cols)];
  });
  tape.on_backward(y, [&tape, x, y, n, cols, factors = std::move(factors)] {
    const Real* dy = tape.gradient(y);
    Real* dx = tape.gradient(x);
    for_rows(tape, n, cols, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row)
        tape.ops().add_scaled(dx + row * cols, factors[static_cast<std::size_t>(row)], dy + row * cols, cols);
    });
  });
  return y;
}

template <typename Real>
Var scale(Tape<Real>& tape, Var x, double factor) {
  return scale_rows(tape, x, std::vector<Real>(static_cast<std::size_t>(tape.rows(x)), static_cast<Real>(factor)));
}

template <typename Real>
Var multiply_rows(Tape<Real>& tape, Var x, Var factors) {
  const std::int64_t n = tape.rows(x), cols = tape.cols(x);
  const Var y = tape.make(n, cols, {x, factors});
  for_rows(tape, n, cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * cols; i < end * cols; ++i)
      tape.mutable_value(y)[i] = tape.value(x)[i] * tape.value(factors)[i / cols];
  });
  tape.on_backward(y, [&tape, x, factors, y, n, cols] {
    const Real* dy = tape.gradient(y);
    Real* dx = tape.has_gradient(x) ? tape.gradient(x) : nullptr;
    Real* df = tape.has_gradient(factors) ? tape.gradient(factors) : nullptr;
    for_rows(tape, n, cols, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        if (dx != nullptr) tape.ops().add_scaled(dx + row * cols, tape.value(factors)[row], dy + row * cols, cols);
        if (df != nullptr) df[row] += tape.ops().dot(dy + row * cols, tape.value(x) + row * cols, cols);
      }
    });
  });
  return y;
}

template <typename Real>
Var dropout(Tape<Real>& tape, Var x, double rate, std::uint64_t seed, std::uint64_t stream) {
  if (rate <= 0) return x;
  const std::int64_t n = tape.size(x);
  const auto keep = [rate, seed, stream](std::int64_t i) {
    const bool kept = static_cast<double>(random_uniform(seed, stream, static_cast<std::uint64_t>(i))) >= rate;
    return static_cast<Real>(kept ? 1 / (1 - rate) : 0.0);
  };
  const Var y = tape.make(tape.rows(x), tape.cols(x), {x});
  for_numbers(tape, n, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) tape.mutable_value(y)[i] = tape.value(x)[i] * keep(i);
  });
  tape.on_backward(y, [&tape, x, y, n, keep] {
    const Real* dy = tape.gradient(y);
    Real* dx = tape.gradient(x);
    for_numbers(tape, n, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) dx[i] += dy[i] * keep(i);
    });
  });
  return y;
}

#define NIBBLE_INSTANTIATE(Real)                                \
  template Var matmul(Tape<Real>&, Var, Var);                   \
  template Var add_bias(Tape<Real>&, Var, Var);                 \
  template Var combine(Tape<Real>&, double, Var, double, Var);  \
  template Var add(Tape<Real>&, Var, Var);                      \
  template Var scale(Tape<Real>&, Var, double);                 \
  template Var scale_rows(Tape<Real>&, Var, std::vector<Real>); \
  template Var multiply_rows(Tape<Real>&, Var, Var);            \
  template Var dropout(Tape<Real>&, Var, double, std::uint64_t, std::uint64_t);
NIBBLE_INSTANTIATE(float)
NIBBLE_INSTANTIATE(double)
#undef NIBBLE_INSTANTIATE

}  // namespace nibble::train
