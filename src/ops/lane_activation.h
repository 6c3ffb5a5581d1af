// Activation functions and soft capping over sixteen lanes.
#pragma once

#include <stdint.h>

#include "ops/lane_math.h"

namespace nibble::ops {
namespace {

// x / (1 + exp(-a)); exp stays finite: below a = -88 the result is smaller than 1e-36 in any case.
inline V logistic_times(V x, V a) {
  const V one = Lanes::broadcast(1.0f);
  const V e = exp_lanes(Lanes::min(Lanes::sub(Lanes::broadcast(0.0f), a), Lanes::broadcast(88.0f)));
  return Lanes::div(x, Lanes::add(one, e));
}

inline V silu_lanes(V x) { return logistic_times(x, x); }

// x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))), where (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)).
inline V gelu_tanh_lanes(V x) {
  constexpr float kTwice = 1.5957691216057308f;  // 2 * sqrt(2 / pi)
  const V cubic = Lanes::fma(Lanes::mul(x, x), Lanes::broadcast(0.044715f), Lanes::broadcast(1.0f));
  return logistic_times(x, Lanes::mul(Lanes::mul(x, Lanes::broadcast(kTwice)), cubic));
}

// x * Phi(x) with half of erfc(|x| / sqrt(2)) after Abramowitz and Stegun 7.1.26, whose error is 1.5e-7; the negative
// side is a product without cancellation.
inline V gelu_lanes(V x) {
  const V zero = Lanes::broadcast(0.0f);
  const V z = Lanes::mul(Lanes::max(x, Lanes::sub(zero, x)), Lanes::broadcast(0.70710678118654752f));
  const V one = Lanes::broadcast(1.0f);
  const V t = Lanes::div(one, Lanes::fma(z, Lanes::broadcast(0.3275911f), one));
  V p = Lanes::broadcast(1.061405429f);
  p = Lanes::fma(p, t, Lanes::broadcast(-1.453152027f));
  p = Lanes::fma(p, t, Lanes::broadcast(1.421413741f));
  p = Lanes::fma(p, t, Lanes::broadcast(-0.284496736f));
  p = Lanes::fma(p, t, Lanes::broadcast(0.254829592f));
  const V half = Lanes::mul(Lanes::mul(Lanes::mul(p, t), Lanes::broadcast(0.5f)),
                            exp_lanes(Lanes::sub(zero, Lanes::mul(z, z))));  // of erfc
  const V low = Lanes::mul(x, half);
  const V high = Lanes::sub(x, low);
  return Lanes::add(Lanes::keep_not_less(high, x, zero), Lanes::sub(low, Lanes::keep_not_less(low, x, zero)));
}

inline V relu_lanes(V x) { return Lanes::max(x, Lanes::broadcast(0.0f)); }

inline V relu2_lanes(V x) {
  const V positive = relu_lanes(x);
  return Lanes::mul(positive, positive);
}

constexpr float kSwishLimit = 7.0f;

inline V clamped_swish_lanes(V x) {
  const V y = Lanes::min(x, Lanes::broadcast(kSwishLimit));
  return logistic_times(y, Lanes::mul(y, Lanes::broadcast(1.702f)));
}

// cap * tanh(x / cap), tanh(u) = sign(u) * (1 - e) / (1 + e) with e = exp(-2|u|).
inline V softcap_lanes(V x, float cap) {
  const V zero = Lanes::broadcast(0.0f), one = Lanes::broadcast(1.0f);
  const V u = Lanes::max(x, Lanes::sub(zero, x));
  const V e = exp_lanes(Lanes::mul(u, Lanes::broadcast(-2.0f / cap)));
  const V y = Lanes::mul(Lanes::div(Lanes::sub(one, e), Lanes::add(one, e)), Lanes::broadcast(cap));
  const V positive = Lanes::keep_not_less(y, x, zero);
  return Lanes::sub(positive, Lanes::sub(y, positive));
}

template <V (*kActivation)(V)>
void gate_by(float* gate, const float* up, int64_t n) noexcept {
  for (int64_t i = 0; i < n; i += kLanes) {
    const V g = kActivation(load_some(gate + i, n - i, 0.0f));
    store_some(gate + i, Lanes::mul(g, load_some(up + i, n - i, 0.0f)), n - i);
  }
}

inline void gate_by_clamped_swish(float* gate, const float* up, int64_t n) noexcept {
  const V limit = Lanes::broadcast(kSwishLimit), one = Lanes::broadcast(1.0f);
  for (int64_t i = 0; i < n; i += kLanes) {
    const V g = clamped_swish_lanes(load_some(gate + i, n - i, 0.0f));
    const V u = Lanes::max(Lanes::min(load_some(up + i, n - i, 0.0f), limit), Lanes::broadcast(-kSwishLimit));
    store_some(gate + i, Lanes::mul(g, Lanes::add(u, one)), n - i);
  }
}

template <V (*kActivation)(V)>
void activate_by(float* x, int64_t n) noexcept {
  for (int64_t i = 0; i < n; i += kLanes) store_some(x + i, kActivation(load_some(x + i, n - i, 0.0f)), n - i);
}

}  // namespace
}  // namespace nibble::ops
