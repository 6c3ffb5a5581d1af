// The decoder's operations as training needs them, forward and backward, as one table of functions per instruction set
// and type: f32 of each set, and f64 to check gradients with. Backward functions add to the gradients they are given.
// Sums run in fixed lanes without fused multiply-adds, so that every set gives the same bits.
#pragma once

#include <stdint.h>

#include "ops/op_table.h"

namespace nibble::ops {

template <typename Real>
struct TrainingOps {
  // y[i] = x[i] * r * weight[i] with r = 1 / sqrt(mean(x^2) + eps), which is returned.
  Real (*rms_norm)(const Real* x, const Real* weight, Real eps, int64_t n, Real* y) noexcept;
  void (*rms_norm_backward)(const Real* x, const Real* weight, Real r, const Real* dy, int64_t n, Real* dx,
                            Real* dweight) noexcept;
  // y[i] = (x[i] - mean) * r * weight[i] + bias[i]; bias may be null. Returns r, and the mean.
  Real (*layer_norm)(const Real* x, const Real* weight, const Real* bias, Real eps, int64_t n, Real* y,
                     Real* mean) noexcept;
  // dbias may be null.
  void (*layer_norm_backward)(const Real* x, const Real* weight, Real r, Real mean, const Real* dy, int64_t n, Real* dx,
                              Real* dweight, Real* dbias) noexcept;
  // y (+)= the pairs (x[i], x[i + pairs]) rotated by the angles whose cos and sin are given; y may be x.
  void (*rotate)(const Real* x, const Real* cos, const Real* sin, int64_t pairs, bool add, Real* y) noexcept;
  // y += a x
  void (*add_scaled)(Real* y, Real a, const Real* x, int64_t n) noexcept;
  // y = x * w, y += x * w
  void (*multiply)(const Real* x, const Real* w, int64_t n, Real* y) noexcept;
  void (*add_product)(const Real* x, const Real* w, int64_t n, Real* y) noexcept;
  Real (*dot)(const Real* a, const Real* b, int64_t n) noexcept;
  // By Activation: y = activation(x), and y = activation(gate) * up or as said there.
  void (*activate[kActivations])(const Real* x, int64_t n, Real* y) noexcept;
  void (*activate_backward[kActivations])(const Real* x, const Real* dy, int64_t n, Real* dx) noexcept;
  void (*gate[kActivations])(const Real* gate, const Real* up, int64_t n, Real* y) noexcept;
  void (*gate_backward[kActivations])(const Real* gate, const Real* up, const Real* dy, int64_t n, Real* dgate,
                                      Real* dup) noexcept;
  // x = softmax(x) in place; returns the logarithm of the sum of exp(x). `sink` is one score more, without a place.
  Real (*softmax)(Real* x, int64_t n, const Real* sink) noexcept;
  // x = exp(x - shift)
  void (*exp_minus)(Real* x, Real shift, int64_t n) noexcept;
  // dp = p * (dp - mean)
  void (*softmax_backward)(const Real* p, Real mean, int64_t n, Real* dp) noexcept;
  // y = cap * tanh(x / cap); dx += dy * (1 - (y / cap)^2), dx may be dy with `in_place`: dx = ...
  void (*softcap)(const Real* x, Real cap, int64_t n, Real* y) noexcept;
  void (*softcap_backward)(const Real* y, Real cap, const Real* dy, int64_t n, bool in_place, Real* dx) noexcept;
  // Of one group of weights with scale s > 0 and zero z: q = round(w / s + offset + z) held in [low, high], y = s * (q
  // - z); offset may be null.
  void (*round_group)(const Real* w, const Real* offset, Real s, Real z, Real low, Real high, int64_t n,
                      Real* y) noexcept;
  // Straight through: what is rounded passes its gradient on, what is held at an end does not (arXiv 2407.11062, 3.2):
  // dw += dy, ds += dy * (q - z - w / s) inside, ds += dy * (q - z), dz -= dy * s at the ends. dw and doffset may be
  // null.
  void (*round_group_backward)(const Real* w, const Real* offset, Real s, Real z, Real low, Real high, const Real* dy,
                               int64_t n, Real* dw, Real* doffset, Real* ds, Real* dz) noexcept;
  // Likewise y = s * the level nearest to w / s + offset, of n_levels in ascending order.
  void (*round_to_levels)(const Real* w, const Real* offset, Real s, const float* levels, int n_levels, int64_t n,
                          Real* y) noexcept;
  void (*round_to_levels_backward)(const Real* w, const Real* offset, Real s, const float* levels, int n_levels,
                                   const Real* dy, int64_t n, Real* dw, Real* doffset, Real* ds) noexcept;
};

const TrainingOps<float>& training_ops_scalar() noexcept;
const TrainingOps<float>& training_ops_avx2() noexcept;
const TrainingOps<float>& training_ops_avx512() noexcept;
const TrainingOps<double>& training_ops_double() noexcept;

}  // namespace nibble::ops
