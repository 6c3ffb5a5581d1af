// A tensor that training changes, and its gradient.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "base/aligned_buffer.h"

namespace nibble::train {

template <typename Real>
struct BasicParameter {
  std::string name;  // canonical, as in a file: "model.layers.0.mlp.up_proj.weight"
  std::int64_t rows = 0, cols = 0;
  AlignedBuffer value, gradient;  // (rows, cols) of Real; the gradient is a sum until someone zeroes it
  double lr_scale = 1;            // of the learning rate of the step
  bool decays = true;             // is weight decay applied to it? (not to norms, biases, scales)

  BasicParameter() = default;
  BasicParameter(std::string parameter_name, std::int64_t n_rows, std::int64_t n_cols)
      : name(std::move(parameter_name)),
        rows(n_rows),
        cols(n_cols),
        value(static_cast<std::size_t>(n_rows * n_cols) * sizeof(Real)),
        gradient(static_cast<std::size_t>(n_rows * n_cols) * sizeof(Real)) {
    zero_gradient();
  }
  std::int64_t size() const { return rows * cols; }
  Real* values() { return value.as<Real>(); }
  const Real* values() const { return value.as<Real>(); }
  Real* gradients() { return gradient.as<Real>(); }
  void zero_gradient() { std::fill_n(gradient.as<Real>(), size(), Real{0}); }
};

using Parameter = BasicParameter<float>;

}  // namespace nibble::train
