#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "train/nodes.h"
#include "train/row_work.h"

namespace nibble::train {

namespace {

template <typename Real>
void copy(const Real* from, std::int64_t n, Real* to) {
  std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(Real));
}

// The numbers of x from `first` on, as (rows, cols).
template <typename Real>
Var numbers_from(Tape<Real>& tape, Var x, std::int64_t first, std::int64_t rows, std::int64_t cols) {
  const std::int64_t n = rows * cols;
  const Var y = tape.make(rows, cols, {x});
  copy(tape.value(x) + first, n, tape.mutable_value(y));
  tape.on_backward(
      y, [&tape, x, y, first, n] { tape.ops().add_scaled(tape.gradient(x) + first, Real{1}, tape.gradient(y), n); });
  return y;
}

}  // namespace

template <typename Real>
Var columns(Tape<Real>& tape, Var x, std::int64_t begin, std::int64_t n) {
  const std::int64_t rows = tape.rows(x), cols = tape.cols(x);
  const Var y = tape.make(rows, n, {x});
  for (std::int64_t row = 0; row < rows; ++row)
    copy(tape.value(x) + row * cols + begin, n, tape.mutable_value(y) + row * n);
  tape.on_backward(y, [&tape, x, y, begin, n, rows, cols] {
    const Real* dy = tape.gradient(y);
    Real* dx = tape.gradient(x);
    for (std::int64_t row = 0; row < rows; ++row)
      tape.ops().add_scaled(dx + row * cols + begin, Real{1}, dy + row * n, n);
  });
  return y;
}

namespace {

// The first of them that has a gradient, else the first.
template <typename Real>
Var one_with_gradient(const Tape<Real>& tape, const std::vector<Var>& parts) {
  const auto found = std::ranges::find_if(parts, [&tape](Var part) { return tape.has_gradient(part); });
  return found == parts.end() ? parts.front() : *found;
}

}  // namespace

template <typename Real>
Var beside(Tape<Real>& tape, std::span<const Var> parts) {
  const std::vector<Var> from(parts.begin(), parts.end());
  const std::int64_t rows = tape.rows(from.front());
  std::int64_t cols = 0;
  for (const Var part : from) cols += tape.cols(part);
  const Var y = tape.make(rows, cols, {one_with_gradient(tape, from)});
  std::int64_t at = 0;
  for (const Var part : from) {
    const std::int64_t n = tape.cols(part);
    for (std::int64_t row = 0; row < rows; ++row)
      copy(tape.value(part) + row * n, n, tape.mutable_value(y) + row * cols + at);
    at += n;
  }
  tape.on_backward(y, [&tape, y, from, rows, cols] {
    const Real* dy = tape.gradient(y);
    for (const Var part : from) {
      const std::int64_t n = tape.cols(part);
      if (tape.has_gradient(part)) {
        Real* to = tape.gradient(part);
        for (std::int64_t row = 0; row < rows; ++row) tape.ops().add_scaled(to + row * n, Real{1}, dy + row * cols, n);
      }
      dy += n;
    }
  });
  return y;
}

template <typename Real>
Var row_range(Tape<Real>& tape, Var x, std::int64_t begin, std::int64_t n) {
  return numbers_from(tape, x, begin * tape.cols(x), n, tape.cols(x));
}

template <typename Real>
Var gather_rows(Tape<Real>& tape, Var x, std::vector<std::int64_t> rows) {
  const auto n = static_cast<std::int64_t>(rows.size());
  const std::int64_t cols = tape.cols(x);
  const Var y = tape.make(n, cols, {x});
  for (std::int64_t i = 0; i < n; ++i)
    copy(tape.value(x) + rows[static_cast<std::size_t>(i)] * cols, cols, tape.mutable_value(y) + i * cols);
  tape.on_backward(y, [&tape, x, y, n, cols, rows = std::move(rows)] {
    const Real* dy = tape.gradient(y);
    Real* dx = tape.gradient(x);
    for (std::int64_t i = 0; i < n; ++i)
      tape.ops().add_scaled(dx + rows[static_cast<std::size_t>(i)] * cols, Real{1}, dy + i * cols, cols);
  });
  return y;
}

template <typename Real>
Var scatter_rows(Tape<Real>& tape, Var x, std::vector<std::int64_t> rows, std::int64_t n_rows) {
  const auto n = static_cast<std::int64_t>(rows.size());
  const std::int64_t cols = tape.cols(x);
  const Var y = tape.make(n_rows, cols, {x});
  std::fill_n(tape.mutable_value(y), n_rows * cols, Real{0});
  for (std::int64_t i = 0; i < n; ++i)
    tape.ops().add_scaled(tape.mutable_value(y) + rows[static_cast<std::size_t>(i)] * cols, Real{1},
                          tape.value(x) + i * cols, cols);
  tape.on_backward(y, [&tape, x, y, n, cols, rows = std::move(rows)] {
    const Real* dy = tape.gradient(y);
    Real* dx = tape.gradient(x);
    for (std::int64_t i = 0; i < n; ++i)
      tape.ops().add_scaled(dx + i * cols, Real{1}, dy + rows[static_cast<std::size_t>(i)] * cols, cols);
  });
  return y;
}

template <typename Real>
Var stack(Tape<Real>& tape, std::span<const Var> parts) {
  const std::vector<Var> from(parts.begin(), parts.end());
  std::int64_t rows = 0;
  for (const Var part : from) rows += tape.rows(part);
  const std::int64_t cols = tape.cols(from.front());
  const Var y = tape.make(rows, cols, {one_with_gradient(tape, from)});
  std::int64_t at = 0;
  for (const Var part : from) {
    copy(tape.value(part), tape.size(part), tape.mutable_value(y) + at);
    at += tape.size(part);
  }
  tape.on_backward(y, [&tape, y, from] {
    const Real* dy = tape.gradient(y);
    for (const Var part : from) {
      if (tape.has_gradient(part)) tape.ops().add_scaled(tape.gradient(part), Real{1}, dy, tape.size(part));
      dy += tape.size(part);
    }
  });
  return y;
}

template <typename Real>
Var reshape(Tape<Real>& tape, Var x, std::int64_t rows, std::int64_t cols) {
  return numbers_from(tape, x, 0, rows, cols);
}

template <typename Real>
Var embedding(Tape<Real>& tape, Var table, std::vector<token::TokenId> tokens) {
  const auto n = static_cast<std::int64_t>(tokens.size());
  const std::int64_t cols = tape.cols(table);
  const Var y = tape.make(n, cols, {table});
  for_rows(tape, n, cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      copy(tape.value(table) + std::int64_t{tokens[static_cast<std::size_t>(i)]} * cols, cols,
           tape.mutable_value(y) + i * cols);
  });
  tape.on_backward(y, [&tape, table, y, n, cols, tokens = std::move(tokens)] {
    const Real* dy = tape.gradient(y);
    Real* dtable = tape.gradient(table);
    // Tokens come again, so threads take columns.
    const auto body = [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = 0; i < n; ++i) {
        Real* to = dtable + std::int64_t{tokens[static_cast<std::size_t>(i)]} * cols;
        tape.ops().add_scaled(to + begin, Real{1}, dy + i * cols + begin, end - begin);
      }
    };
    tape.context().pool.parallel_for(cols, 64, body);
  });
  return y;
}

template <typename Real>
Var mix(Tape<Real>& tape, Var x, const linalg::Mixer& mixer) {
  const std::int64_t n = tape.size(x), runs = n / mixer.size(), size = mixer.size();
  const Var y = tape.make(tape.rows(x), tape.cols(x), {x});
  // The mixer works in f32.
  const auto apply = [&tape, &mixer, runs, size](const Real* from, bool transposed, bool adds, Real* to) {
    for_rows(tape, runs, size, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> row(static_cast<std::size_t>(size));
      for (std::int64_t run = begin; run < end; ++run) {
        std::transform(from + run * size, from + (run + 1) * size, row.begin(),
                       [](Real v) { return static_cast<float>(v); });
        transposed ? mixer.multiply_transposed(row.data(), 1) : mixer.multiply(row.data(), 1);
        for (std::int64_t i = 0; i < size; ++i) {
          const auto v = static_cast<Real>(row[static_cast<std::size_t>(i)]);
          to[run * size + i] = adds ? to[run * size + i] + v : v;
        }
      }
    });
  };
  apply(tape.value(x), false, false, tape.mutable_value(y));
  tape.on_backward(y, [&tape, x, y, apply] { apply(tape.gradient(y), true, true, tape.gradient(x)); });
  return y;
}

#define NIBBLE_INSTANTIATE(Real)                                                        \
  template Var columns(Tape<Real>&, Var, std::int64_t, std::int64_t);                   \
  template Var beside(Tape<Real>&, std::span<const Var>);                               \
  template Var row_range(Tape<Real>&, Var, std::int64_t, std::int64_t);                 \
  template Var gather_rows(Tape<Real>&, Var, std::vector<std::int64_t>);                \
  template Var scatter_rows(Tape<Real>&, Var, std::vector<std::int64_t>, std::int64_t); \
  template Var stack(Tape<Real>&, std::span<const Var>);                                \
  template Var reshape(Tape<Real>&, Var, std::int64_t, std::int64_t);                   \
  template Var embedding(Tape<Real>&, Var, std::vector<token::TokenId>);                \
  template Var mix(Tape<Real>&, Var, const linalg::Mixer&);
NIBBLE_INSTANTIATE(float)
NIBBLE_INSTANTIATE(double)
#undef NIBBLE_INSTANTIATE

}  // namespace nibble::train
