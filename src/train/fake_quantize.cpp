#include "train/fake_quantize.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "encoding/activation.h"
#include "encoding/affine.h"
#include "train/row_work.h"

namespace nibble::train {

namespace {

// The groups of a matrix and where their scales and zeros are.
template <typename Real>
class Groups {
 public:
  Groups(Tape<Real>& tape, std::int64_t rows, std::int64_t cols, Var scales, Var zeros, const CodeLevels& codes)
      : tape_(tape), scales_(scales), zeros_(zeros), codes_(codes), rows_(rows), cols_(cols) {
    per_row_ = (cols + codes.group - 1) / codes.group;
    shared_ = tape.size(scales) == 1 && rows * per_row_ > 1;
  }

  struct At {
    std::int64_t first, n;  // numbers of the matrix
    std::int64_t index;     // of the scale
    Real scale, zero, low;
  };
  At at(std::int64_t row, std::int64_t group) const {
    At out{};
    out.first = row * cols_ + group * codes_.group;
    out.n = std::min(codes_.group, cols_ - group * codes_.group);
    out.index = shared_ ? 0 : row * per_row_ + group;
    out.scale = tape_.value(scales_)[out.index];
    const Real given = zeros_ ? tape_.value(zeros_)[out.index] : Real{0};
    out.low = codes_.lows ? given : given * out.scale;
    out.zero = codes_.lows ? (out.scale != Real{0} ? given / out.scale : Real{0}) : given;
    return out;
  }
  // body(At, ds, dz) for all groups; what it adds to the two goes to scales and zeros.
  template <typename Body>
  void for_all(bool back, Body&& body) {
    const bool to_scales = back && tape_.has_gradient(scales_), to_zeros = back && tape_.has_gradient(zeros_);
    std::vector<Real> row_scale(static_cast<std::size_t>(shared_ && back ? rows_ : 0)), row_zero = row_scale;
    Real* dscales = to_scales ? tape_.gradient(scales_) : nullptr;
    Real* dzeros = to_zeros ? tape_.gradient(zeros_) : nullptr;
    for_rows(tape_, rows_, cols_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        for (std::int64_t group = 0; group < per_row_; ++group) {
          const At where = at(row, group);
          Real ds = 0, dz = 0;
          body(where, ds, dz);
          if (!back) continue;
          if (codes_.lows && where.scale != Real{0}) {  // z = low / s
            ds -= dz * where.zero / where.scale;
            dz /= where.scale;
          }
          const std::size_t r = static_cast<std::size_t>(row);
          if (to_scales) (shared_ ? row_scale[r] : dscales[where.index]) += ds;
          if (to_zeros) (shared_ ? row_zero[r] : dzeros[where.index]) += dz;
        }
      }
    });
    if (!shared_ || !back) return;
    for (std::size_t row = 0; row < row_scale.size(); ++row) {
      if (to_scales) *dscales += row_scale[row];
      if (to_zeros) *dzeros += row_zero[row];
    }
  }

 private:
  Tape<Real>& tape_;
  Var scales_, zeros_;
  CodeLevels codes_;
  std::int64_t rows_, cols_, per_row_ = 0;
  bool shared_ = false;
};

}  // namespace

template <typename Real>
Var fake_quantize(Tape<Real>& tape, Var w, Var scales, Var zeros, Var offsets, const CodeLevels& codes) {
  const std::int64_t rows = tape.rows(w), cols = tape.cols(w);
  const Var y = tape.make(rows, cols, {w, scales, zeros, offsets});
  auto groups = std::make_shared<Groups<Real>>(tape, rows, cols, scales, zeros, codes);
  const auto low = static_cast<Real>(codes.low), high = static_cast<Real>(codes.high);
  const auto n_levels = static_cast<int>(codes.levels.size());
  groups->for_all(false, [&](const typename Groups<Real>::At& at, Real&, Real&) {
    Real* to = tape.mutable_value(y) + at.first;
    const Real* from = tape.value(w) + at.first;
    const Real* offset = offsets ? tape.value(offsets) + at.first : nullptr;
    if (at.scale == Real{0}) {
      std::fill_n(to, at.n, -at.low);
    } else if (n_levels > 0) {
      tape.ops().round_to_levels(from, offset, at.scale, codes.levels.data(), n_levels, at.n, to);
    } else {
      tape.ops().round_group(from, offset, at.scale, at.zero, low, high, at.n, to);
    }
  });
  tape.on_backward(y, [&tape, w, offsets, y, groups, low, high, n_levels, lows = codes.lows, levels = codes.levels] {
    const Real* dy = tape.gradient(y);
    Real* dw = tape.has_gradient(w) ? tape.gradient(w) : nullptr;
    Real* doffsets = tape.has_gradient(offsets) ? tape.gradient(offsets) : nullptr;
    groups->for_all(true, [&](const typename Groups<Real>::At& at, Real& ds, Real& dz) {
      const Real* from = tape.value(w) + at.first;
      const Real* offset = offsets ? tape.value(offsets) + at.first : nullptr;
      Real* to = dw != nullptr ? dw + at.first : nullptr;
      Real* to_offset = doffsets != nullptr ? doffsets + at.first : nullptr;
      if (at.scale == Real{0}) {
        for (std::int64_t i = 0; i < at.n && lows; ++i) dz -= dy[at.first + i];
      } else if (n_levels > 0) {
        tape.ops().round_to_levels_backward(from, offset, at.scale, levels.data(), n_levels, dy + at.first, at.n, to,
                                            to_offset, &ds);
      } else {
        tape.ops().round_group_backward(from, offset, at.scale, at.zero, low, high, dy + at.first, at.n, to, to_offset,
                                        &ds, &dz);
      }
    });
  });
  return y;
}

template <typename Real>
Var dequantize(Tape<Real>& tape, const float* levels, std::int64_t rows, std::int64_t cols, Var scales, Var zeros,
               const CodeLevels& codes) {
  const Var y = tape.make(rows, cols, {scales, zeros});
  auto groups = std::make_shared<Groups<Real>>(tape, rows, cols, scales, zeros, codes);
  groups->for_all(false, [&](const typename Groups<Real>::At& at, Real&, Real&) {
    for (std::int64_t i = at.first; i < at.first + at.n; ++i)
      tape.mutable_value(y)[i] = at.scale * static_cast<Real>(levels[i]) - at.low;
  });
  tape.on_backward(y, [&tape, levels, y, groups, lows = codes.lows] {
    const Real* dy = tape.gradient(y);
    groups->for_all(true, [&](const typename Groups<Real>::At& at, Real& ds, Real& dz) {
      Real along = 0, sum = 0;
      for (std::int64_t i = at.first; i < at.first + at.n; ++i) {
        along += dy[i] * static_cast<Real>(levels[i]);
        sum += dy[i];
      }
      // As of s (q - z): for_all() turns it into that of a low.
      ds += along - sum * at.zero;
      dz -= lows && at.scale == Real{0} ? sum : sum * at.scale;
    });
  });
  return y;
}

template <typename Real>
Var round_straight(Tape<Real>& tape, Var x, double low, double high) {
  const std::int64_t n = tape.size(x);
  const Var y = tape.make(tape.rows(x), tape.cols(x), {x});
  for (std::int64_t i = 0; i < n; ++i) {
    const double rounded = std::nearbyint(static_cast<double>(tape.value(x)[i]));
    tape.mutable_value(y)[i] = static_cast<Real>(std::clamp(rounded, low, high));
  }
  tape.on_backward(y, [&tape, x, y, n, low, high] {
    const Real* dy = tape.gradient(y);
    Real* dx = tape.gradient(x);
    for (std::int64_t i = 0; i < n; ++i) {
      const double rounded = std::nearbyint(static_cast<double>(tape.value(x)[i]));
      if (rounded >= low && rounded <= high) dx[i] += dy[i];
    }
  });
  return y;
}

template <typename Real>
Var round_to(Tape<Real>& tape, Var x, Dtype dtype) {
  if (dtype == Dtype::kF32) return x;
  const std::int64_t n = tape.size(x);
  const Var y = tape.make(tape.rows(x), tape.cols(x), {x});
  for (std::int64_t i = 0; i < n; ++i) {
    const auto value = static_cast<float>(tape.value(x)[i]);
    const float rounded = encoding::round_scale(dtype, std::abs(value));
    tape.mutable_value(y)[i] = static_cast<Real>(std::copysign(rounded, value));
  }
  tape.on_backward(y, [&tape, x, y, n] { tape.ops().add_scaled(tape.gradient(x), Real{1}, tape.gradient(y), n); });
  return y;
}

template <typename Real>
Var spread(Tape<Real>& tape, Var x, const float* factors, std::int64_t per_block) {
  const std::int64_t n = tape.size(x);
  const Var y = tape.make(tape.rows(x), tape.cols(x) * per_block, {x});
  for (std::int64_t i = 0; i < n * per_block; ++i)
    tape.mutable_value(y)[i] = tape.value(x)[i / per_block] * static_cast<Real>(factors[i]);
  tape.on_backward(y, [&tape, x, y, factors, per_block, n] {
    const Real* dy = tape.gradient(y);
    Real* dx = tape.gradient(x);
    for (std::int64_t i = 0; i < n * per_block; ++i) dx[i / per_block] += dy[i] * static_cast<Real>(factors[i]);
  });
  return y;
}

namespace {

// What a fixed scale can say, half a step beyond its ends included.
struct Ends {
  float least = -std::numeric_limits<float>::infinity(), largest = -least;
};

Ends ends_of(const InputRounding& rounding) {
  const encoding::ActivationInfo& info = *rounding.activation;
  if (!info.is_static()) return {};
  if (info.symmetric) {
    const float limit = (encoding::largest_level(info) + 0.5f) * rounding.scale;
    return {-limit, limit};
  }
  const auto levels = static_cast<float>(1 << info.bits), zero = static_cast<float>(rounding.zero);
  return {(-0.5f - zero) * rounding.scale, (levels - 0.5f - zero) * rounding.scale};
}

}  // namespace

template <typename Real>
Var round_inputs(Tape<Real>& tape, Var x, const InputRounding& rounding) {
  const std::int64_t rows = tape.rows(x), cols = tape.cols(x);
  const Var y = tape.make(rows, cols, {x});
  for_rows(tape, rows, cols, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> row(static_cast<std::size_t>(cols));
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t c = 0; c < cols; ++c)
        row[static_cast<std::size_t>(c)] = static_cast<float>(tape.value(x)[r * cols + c]);
      encoding::round_inputs(rounding, row.data(), cols, row.data());
      for (std::int64_t c = 0; c < cols; ++c)
        tape.mutable_value(y)[r * cols + c] = static_cast<Real>(row[static_cast<std::size_t>(c)]);
    }
  });
  tape.on_backward(y, [&tape, x, y, rounding, rows, cols] {
    const Real* dy = tape.gradient(y);
    Real* dx = tape.gradient(x);
    // With a scale of their own no inputs are held.
    const Ends ends = ends_of(rounding);
    for_numbers(tape, rows * cols, [&](std::int64_t begin, std::int64_t end) {
      const Real* from = tape.value(x);
      for (std::int64_t i = begin; i < end; ++i) {
        const auto value = static_cast<float>(from[i]);
        if (value >= ends.least && value <= ends.largest) dx[i] += dy[i];
      }
    });
  });
  return y;
}

#define NIBBLE_INSTANTIATE(Real)                                                                               \
  template Var fake_quantize(Tape<Real>&, Var, Var, Var, Var, const CodeLevels&);                              \
  template Var dequantize(Tape<Real>&, const float*, std::int64_t, std::int64_t, Var, Var, const CodeLevels&); \
  template Var round_straight(Tape<Real>&, Var, double, double);                                               \
  template Var round_to(Tape<Real>&, Var, Dtype);                                                              \
  template Var spread(Tape<Real>&, Var, const float*, std::int64_t);                                           \
  template Var round_inputs(Tape<Real>&, Var, const InputRounding&);
NIBBLE_INSTANTIATE(float)
NIBBLE_INSTANTIATE(double)
#undef NIBBLE_INSTANTIATE

}  // namespace nibble::train
