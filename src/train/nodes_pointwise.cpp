#include <algorithm>
#include <cmath>

#include "train/nodes.h"
#include "train/row_work.h"

namespace nibble::train {

template <typename Real>
Var activate(Tape<Real>& tape, Var x, ops::Activation activation) {
  const auto kind = static_cast<std::size_t>(activation);
  const std::int64_t n = tape.size(x);
  const Var y = tape.make(tape.rows(x), tape.cols(x), {x});
  for_numbers(tape, n, [&](std::int64_t begin, std::int64_t end) {
    tape.ops().activate[kind](tape.value(x) + begin, end - begin, tape.mutable_value(y) + begin);
  });
  tape.on_backward(y, [&tape, x, y, kind, n] {
    const Real* dy = tape.gradient(y);
    Real* dx = tape.gradient(x);
    for_numbers(tape, n, [&](std::int64_t begin, std::int64_t end) {
      tape.ops().activate_backward[kind](tape.value(x) + begin, dy + begin, end - begin, dx + begin);
    });
  });
  return y;
}

template <typename Real>
Var gate(Tape<Real>& tape, Var gate, Var up, ops::Activation activation) {
  const auto kind = static_cast<std::size_t>(activation);
  const std::int64_t n = tape.size(gate);
  const Var y = tape.make(tape.rows(gate), tape.cols(gate), {gate, up});
  for_numbers(tape, n, [&](std::int64_t begin, std::int64_t end) {
    tape.ops().gate[kind](tape.value(gate) + begin, tape.value(up) + begin, end - begin, tape.mutable_value(y) + begin);
  });
  tape.on_backward(y, [&tape, gate, up, y, kind, n] {
    const Real* dy = tape.gradient(y);
    std::vector<Real> ignored;
    if (!tape.has_gradient(gate) || !tape.has_gradient(up)) ignored.resize(static_cast<std::size_t>(n));
    Real* dgate = tape.has_gradient(gate) ? tape.gradient(gate) : ignored.data();
    Real* dup = tape.has_gradient(up) ? tape.gradient(up) : ignored.data();
    for_numbers(tape, n, [&](std::int64_t begin, std::int64_t end) {
      tape.ops().gate_backward[kind](tape.value(gate) + begin, tape.value(up) + begin, dy + begin, end - begin,
                                     dgate + begin, dup + begin);
    });
  });
  return y;
}

template <typename Real>
Var softcap(Tape<Real>& tape, Var x, double cap) {
  const std::int64_t n = tape.size(x);
  const auto limit = static_cast<Real>(cap);
  const Var y = tape.make(tape.rows(x), tape.cols(x), {x});
  for_numbers(tape, n, [&](std::int64_t begin, std::int64_t end) {
    tape.ops().softcap(tape.value(x) + begin, limit, end - begin, tape.mutable_value(y) + begin);
  });
  // From x again: a loss may have used y up.
  tape.on_backward(y, [&tape, x, y, limit, n] {
    const Real* dy = tape.gradient(y);
    Real* dx = tape.gradient(x);
    for_numbers(tape, n, [&](std::int64_t begin, std::int64_t end) {
      constexpr std::int64_t kRun = 256;
      Real capped[kRun];
      for (std::int64_t at = begin; at < end; at += kRun) {
        const std::int64_t run = std::min(kRun, end - at);
        tape.ops().softcap(tape.value(x) + at, limit, run, capped);
        tape.ops().softcap_backward(capped, limit, dy + at, run, false, dx + at);
      }
    });
  });
  return y;
}

template <typename Real>
Var sigmoid(Tape<Real>& tape, Var x) {
  const std::int64_t n = tape.size(x);
  const Var y = tape.make(tape.rows(x), tape.cols(x), {x});
  for (std::int64_t i = 0; i < n; ++i) tape.mutable_value(y)[i] = 1 / (1 + std::exp(-tape.value(x)[i]));
  tape.on_backward(y, [&tape, x, y, n] {
    const Real* dy = tape.gradient(y);
    Real* dx = tape.gradient(x);
    for (std::int64_t i = 0; i < n; ++i) dx[i] += dy[i] * tape.value(y)[i] * (1 - tape.value(y)[i]);
  });
  return y;
}

template <typename Real>
Var rope(Tape<Real>& tape, Var x, std::int64_t head_dim, const RopeTable<Real>& table) {
  const std::int64_t n = tape.rows(x), cols = tape.cols(x), pairs = table.pairs;
  const Var y = tape.make(n, cols, {x});
  for_rows(tape, n, cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t at = row % table.length * pairs;
      for (std::int64_t col = 0; col < cols; col += head_dim) {
        const Real* from = tape.value(x) + row * cols + col;
        Real* to = tape.mutable_value(y) + row * cols + col;
        for (std::int64_t i = 2 * pairs; i < head_dim; ++i) to[i] = from[i];
        tape.ops().rotate(from, table.cos.data() + at, table.sin.data() + at, pairs, false, to);
      }
    }
  });
  tape.on_backward(y, [&tape, &table, x, y, n, cols, pairs, head_dim] {
    const Real* dy = tape.gradient(y);
    Real* dx = tape.gradient(x);
    for_rows(tape, n, cols, [&](std::int64_t begin, std::int64_t end) {
      std::vector<Real> back(static_cast<std::size_t>(pairs));  // the other way round
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t at = row % table.length * pairs;
        for (std::int64_t i = 0; i < pairs; ++i)
          back[static_cast<std::size_t>(i)] = -table.sin[static_cast<std::size_t>(at + i)];
        for (std::int64_t col = 0; col < cols; col += head_dim) {
          const Real* from = dy + row * cols + col;
          Real* to = dx + row * cols + col;
          tape.ops().rotate(from, table.cos.data() + at, back.data(), pairs, true, to);
          for (std::int64_t i = 2 * pairs; i < head_dim; ++i) to[i] += from[i];
        }
      }
    });
  });
  return y;
}

#define NIBBLE_INSTANTIATE(Real)                             \
  template Var activate(Tape<Real>&, Var, ops::Activation);  \
  template Var gate(Tape<Real>&, Var, Var, ops::Activation); \
  template Var softcap(Tape<Real>&, Var, double);            \
  template Var sigmoid(Tape<Real>&, Var);                    \
  template Var rope(Tape<Real>&, Var, std::int64_t, const RopeTable<Real>&);
NIBBLE_INSTANTIATE(float)
NIBBLE_INSTANTIATE(double)
#undef NIBBLE_INSTANTIATE

}  // namespace nibble::train
