// The operations of training, written once; a file of an instruction set includes this and takes `kTraining<Real>`.
#pragma once

#include "ops/training_math.h"
#include "ops/training_ops.h"

namespace nibble::ops {
namespace {

template <typename Real>
Real rms_norm(const Real* x, const Real* weight, Real eps, int64_t n, Real* y) noexcept {
  V<Real> sum = {};
  for (int64_t i = 0; i < n; i += kWidth<Real>) {
    const V<Real> v = load(x + i, n - i);
    sum += v * v;
  }
  const Real r = 1 / static_cast<Real>(sqrt(static_cast<double>(sum_of<Real>(sum) / static_cast<Real>(n) + eps)));
  for (int64_t i = 0; i < n; i += kWidth<Real>)
    store<Real>(y + i, load(x + i, n - i) * r * load(weight + i, n - i), n - i);
  return r;
}

// With u = dy * weight: dx = r * (u - x * r^2 * mean(u x)).
template <typename Real>
void rms_norm_backward(const Real* x, const Real* weight, Real r, const Real* dy, int64_t n, Real* dx,
                       Real* dweight) noexcept {
  V<Real> sum = {};
  for (int64_t i = 0; i < n; i += kWidth<Real>)
    sum += load(dy + i, n - i) * load(weight + i, n - i) * load(x + i, n - i);
  const Real along = r * r * (sum_of<Real>(sum) / static_cast<Real>(n));
  for (int64_t i = 0; i < n; i += kWidth<Real>) {
    const V<Real> v = load(x + i, n - i), g = load(dy + i, n - i);
    store<Real>(dx + i, load(dx + i, n - i) + (g * load(weight + i, n - i) - v * along) * r, n - i);
    store<Real>(dweight + i, load(dweight + i, n - i) + g * v * r, n - i);
  }
}

template <typename Real>
Real layer_norm(const Real* x, const Real* weight, const Real* bias, Real eps, int64_t n, Real* y,
                Real* mean) noexcept {
  V<Real> sum = {};
  for (int64_t i = 0; i < n; i += kWidth<Real>) sum += load(x + i, n - i);
  *mean = sum_of<Real>(sum) / static_cast<Real>(n);
  V<Real> square = {};
  for (int64_t i = 0; i < n; i += kWidth<Real>) {
    const V<Real> v = load(x + i, n - i, *mean) - *mean;
    square += v * v;
  }
  const Real r = 1 / static_cast<Real>(sqrt(static_cast<double>(sum_of<Real>(square) / static_cast<Real>(n) + eps)));
  for (int64_t i = 0; i < n; i += kWidth<Real>) {
    V<Real> v = (load(x + i, n - i) - *mean) * r * load(weight + i, n - i);
    if (bias != nullptr) v += load(bias + i, n - i);
    store<Real>(y + i, v, n - i);
  }
  return r;
}

// With u = dy * weight and h the normed x: dx = r * (u - mean(u) - h * mean(u h)).
template <typename Real>
void layer_norm_backward(const Real* x, const Real* weight, Real r, Real mean, const Real* dy, int64_t n, Real* dx,
                         Real* dweight, Real* dbias) noexcept {
  V<Real> sum = {}, product = {};
  for (int64_t i = 0; i < n; i += kWidth<Real>) {
    const V<Real> u = load(dy + i, n - i) * load(weight + i, n - i);
    sum += u;
    product += u * ((load(x + i, n - i, mean) - mean) * r);
  }
  const Real mean_u = sum_of<Real>(sum) / static_cast<Real>(n), mean_uh = sum_of<Real>(product) / static_cast<Real>(n);
  for (int64_t i = 0; i < n; i += kWidth<Real>) {
    const V<Real> g = load(dy + i, n - i), h = (load(x + i, n - i) - mean) * r;
    const V<Real> u = g * load(weight + i, n - i);
    store<Real>(dx + i, load(dx + i, n - i) + (u - mean_u - h * mean_uh) * r, n - i);
    store<Real>(dweight + i, load(dweight + i, n - i) + g * h, n - i);
    if (dbias != nullptr) store<Real>(dbias + i, load(dbias + i, n - i) + g, n - i);
  }
}

template <typename Real>
void rotate(const Real* x, const Real* cos, const Real* sin, int64_t pairs, bool add, Real* y) noexcept {
  for (int64_t i = 0; i < pairs; i += kWidth<Real>) {
    const int64_t left = pairs - i;
    const V<Real> a = load(x + i, left), b = load(x + pairs + i, left), c = load(cos + i, left),
                  s = load(sin + i, left);
    V<Real> first = a * c - b * s, second = b * c + a * s;
    if (add) {
      first += load(y + i, left);
      second += load(y + pairs + i, left);
    }
    store<Real>(y + i, first, left);
    store<Real>(y + pairs + i, second, left);
  }
}

template <typename Real>
void add_scaled(Real* y, Real a, const Real* x, int64_t n) noexcept {
  for (int64_t i = 0; i < n; i += kWidth<Real>) store<Real>(y + i, load(y + i, n - i) + load(x + i, n - i) * a, n - i);
}

template <typename Real>
void multiply(const Real* x, const Real* w, int64_t n, Real* y) noexcept {
  for (int64_t i = 0; i < n; i += kWidth<Real>) store<Real>(y + i, load(x + i, n - i) * load(w + i, n - i), n - i);
}

template <typename Real>
void add_product(const Real* x, const Real* w, int64_t n, Real* y) noexcept {
  for (int64_t i = 0; i < n; i += kWidth<Real>)
    store<Real>(y + i, load(y + i, n - i) + load(x + i, n - i) * load(w + i, n - i), n - i);
}

template <typename Real>
Real dot(const Real* a, const Real* b, int64_t n) noexcept {
  V<Real> sum = {};
  for (int64_t i = 0; i < n; i += kWidth<Real>) sum += load(a + i, n - i) * load(b + i, n - i);
  return sum_of<Real>(sum);
}

template <typename Real, typename Function>
void activate(const Real* x, int64_t n, Real* y) noexcept {
  for (int64_t i = 0; i < n; i += kWidth<Real>) store<Real>(y + i, Function::at(load(x + i, n - i)).value, n - i);
}

template <typename Real, typename Function>
void activate_backward(const Real* x, const Real* dy, int64_t n, Real* dx) noexcept {
  for (int64_t i = 0; i < n; i += kWidth<Real>) {
    const V<Real> slope = Function::at(load(x + i, n - i)).slope;
    store<Real>(dx + i, load(dx + i, n - i) + load(dy + i, n - i) * slope, n - i);
  }
}

// What the gate multiplies: up itself, of the clamped swish up held within the limit, and 1.
template <typename Real, bool kClamped>
V<Real> gated(V<Real> up) {
  if constexpr (!kClamped) return up;
  return least<Real>(most<Real>(up, -kSwishLimit), kSwishLimit) + Real{1};
}

template <typename Real, typename Function, bool kClamped = false>
void gate(const Real* g, const Real* up, int64_t n, Real* y) noexcept {
  for (int64_t i = 0; i < n; i += kWidth<Real>)
    store<Real>(y + i, Function::at(load(g + i, n - i)).value * gated<Real, kClamped>(load(up + i, n - i)), n - i);
}

template <typename Real, typename Function, bool kClamped = false>
void gate_backward(const Real* g, const Real* up, const Real* dy, int64_t n, Real* dgate, Real* dup) noexcept {
  for (int64_t i = 0; i < n; i += kWidth<Real>) {
    const Pair<Real> at = Function::at(load(g + i, n - i));
    const V<Real> d = load(dy + i, n - i), u = load(up + i, n - i);
    V<Real> to_up = d * at.value;
    if constexpr (kClamped) to_up = absolute<Real>(u) > Real{kSwishLimit} ? V<Real>{} : to_up;
    store<Real>(dgate + i, load(dgate + i, n - i) + d * at.slope * gated<Real, kClamped>(u), n - i);
    store<Real>(dup + i, load(dup + i, n - i) + to_up, n - i);
  }
}

template <typename Real>
Real softmax(Real* x, int64_t n, const Real* sink) noexcept {
  V<Real> largest = splat(sink != nullptr ? *sink : x[0]);
  for (int64_t i = 0; i < n; i += kWidth<Real>) {
    const V<Real> v = load(x + i, n - i, x[0]);
    largest = v > largest ? v : largest;
  }
  Real top = largest[0];
  for (int i = 1; i < kWidth<Real>; ++i) top = largest[i] > top ? largest[i] : top;
  V<Real> sums = {};
  for (int64_t i = 0; i < n; i += kWidth<Real>) {
    const V<Real> e = exp_of(load(x + i, n - i, static_cast<Real>(-1e9)) - top);
    store<Real>(x + i, e, n - i);
    sums += e;
  }
  Real sum = sum_of<Real>(sums);
  if (sink != nullptr) sum += exp_of(splat(*sink - top))[0];
  const Real factor = 1 / sum;
  for (int64_t i = 0; i < n; i += kWidth<Real>) store<Real>(x + i, load(x + i, n - i) * factor, n - i);
  return top + static_cast<Real>(log(static_cast<double>(sum)));
}

template <typename Real>
void exp_minus(Real* x, Real shift, int64_t n) noexcept {
  for (int64_t i = 0; i < n; i += kWidth<Real>) store<Real>(x + i, exp_of(load(x + i, n - i) - shift), n - i);
}

template <typename Real>
void softmax_backward(const Real* p, Real mean, int64_t n, Real* dp) noexcept {
  for (int64_t i = 0; i < n; i += kWidth<Real>)
    store<Real>(dp + i, load(p + i, n - i) * (load(dp + i, n - i) - mean), n - i);
}

template <typename Real>
void softcap(const Real* x, Real cap, int64_t n, Real* y) noexcept {
  for (int64_t i = 0; i < n; i += kWidth<Real>)
    store<Real>(y + i, tanh_of<Real>(load(x + i, n - i) * (1 / cap)) * cap, n - i);
}

template <typename Real>
void softcap_backward(const Real* y, Real cap, const Real* dy, int64_t n, bool in_place, Real* dx) noexcept {
  for (int64_t i = 0; i < n; i += kWidth<Real>) {
    const V<Real> t = load(y + i, n - i) * (1 / cap);
    V<Real> d = load(dy + i, n - i) * (Real{1} - t * t);
    if (!in_place) d += load(dx + i, n - i);
    store<Real>(dx + i, d, n - i);
  }
}

// Magnitudes below 2^22, as codes are, to the nearest even integer.
inline FloatLanes round_of(FloatLanes x) {
  constexpr float kMagic = 12582912.0f;
  return (x + kMagic) - kMagic;
}
inline DoubleLanes round_of(DoubleLanes x) {
  constexpr double kMagic = 6755399441055744.0;
  return (x + kMagic) - kMagic;
}

template <typename Real>
void round_group(const Real* w, const Real* offset, Real s, Real z, Real low, Real high, int64_t n, Real* y) noexcept {
  const Real inverse = 1 / s;
  for (int64_t i = 0; i < n; i += kWidth<Real>) {
    V<Real> at = load(w + i, n - i) * inverse + z;
    if (offset != nullptr) at += load(offset + i, n - i);
    at = least<Real>(most<Real>(at, low - 1), high + 1);  // what is beyond stays there
    store<Real>(y + i, (least<Real>(most<Real>(round_of(at), low), high) - z) * s, n - i);
  }
}

template <typename Real>
void round_group_backward(const Real* w, const Real* offset, Real s, Real z, Real low, Real high, const Real* dy,
                          int64_t n, Real* dw, Real* doffset, Real* ds, Real* dz) noexcept {
  const Real inverse = 1 / s;
  V<Real> to_scale = {}, to_zero = {};
  for (int64_t i = 0; i < n; i += kWidth<Real>) {
    const V<Real> real = load(w + i, n - i) * inverse, d = load(dy + i, n - i);
    V<Real> at = real + z;
    if (offset != nullptr) at += load(offset + i, n - i);
    at = least<Real>(most<Real>(at, low - 1), high + 1);
    const V<Real> rounded = round_of(at);
    const V<Real> code = least<Real>(most<Real>(rounded, low), high);
    const auto inside = rounded == code;
    to_scale += d * (code - z - (inside ? real : V<Real>{}));
    to_zero += inside ? V<Real>{} : d * -s;
    const V<Real> passed = inside ? d : V<Real>{};
    if (dw != nullptr) store<Real>(dw + i, load(dw + i, n - i) + passed, n - i);
    if (doffset != nullptr) store<Real>(doffset + i, load(doffset + i, n - i) + passed * s, n - i);
  }
  *ds += sum_of<Real>(to_scale);
  *dz += sum_of<Real>(to_zero);
}

template <typename Real>
V<Real> nearest_level(V<Real> at, const float* levels, int n_levels) {
  V<Real> level = splat<Real>(levels[0]);
  for (int k = 1; k < n_levels; ++k) {
    const Real middle = (static_cast<Real>(levels[k - 1]) + static_cast<Real>(levels[k])) / 2;
    level = at >= middle ? splat<Real>(levels[k]) : level;
  }
  return level;
}

template <typename Real>
void round_to_levels(const Real* w, const Real* offset, Real s, const float* levels, int n_levels, int64_t n,
                     Real* y) noexcept {
  const Real inverse = 1 / s;
  for (int64_t i = 0; i < n; i += kWidth<Real>) {
    V<Real> at = load(w + i, n - i) * inverse;
    if (offset != nullptr) at += load(offset + i, n - i);
    store<Real>(y + i, nearest_level<Real>(at, levels, n_levels) * s, n - i);
  }
}

template <typename Real>
void round_to_levels_backward(const Real* w, const Real* offset, Real s, const float* levels, int n_levels,
                              const Real* dy, int64_t n, Real* dw, Real* doffset, Real* ds) noexcept {
  const Real inverse = 1 / s, low = levels[0], high = levels[n_levels - 1];
  V<Real> to_scale = {};
  for (int64_t i = 0; i < n; i += kWidth<Real>) {
    const V<Real> real = load(w + i, n - i) * inverse, d = load(dy + i, n - i);
    V<Real> at = real;
    if (offset != nullptr) at += load(offset + i, n - i);
    const V<Real> held = least<Real>(most<Real>(at, low), high);
    const auto inside = held == at;
    to_scale += d * (nearest_level<Real>(at, levels, n_levels) - (inside ? real : V<Real>{}));
    const V<Real> passed = inside ? d : V<Real>{};
    if (dw != nullptr) store<Real>(dw + i, load(dw + i, n - i) + passed, n - i);
    if (doffset != nullptr) store<Real>(doffset + i, load(doffset + i, n - i) + passed * s, n - i);
  }
  *ds += sum_of<Real>(to_scale);
}

template <typename R>
constexpr TrainingOps<R> kTraining = {
    rms_norm<R>,
    rms_norm_backward<R>,
    layer_norm<R>,
    layer_norm_backward<R>,
    rotate<R>,
    add_scaled<R>,
    multiply<R>,
    add_product<R>,
    dot<R>,
    {activate<R, Silu<R>>, activate<R, Gelu<R>>, activate<R, GeluTanh<R>>, activate<R, Relu<R>>, activate<R, Relu2<R>>,
     activate<R, ClampedSwish<R>>},
    {activate_backward<R, Silu<R>>, activate_backward<R, Gelu<R>>, activate_backward<R, GeluTanh<R>>,
     activate_backward<R, Relu<R>>, activate_backward<R, Relu2<R>>, activate_backward<R, ClampedSwish<R>>},
    {gate<R, Silu<R>>, gate<R, Gelu<R>>, gate<R, GeluTanh<R>>, gate<R, Relu<R>>, gate<R, Relu2<R>>,
     gate<R, ClampedSwish<R>, true>},
    {gate_backward<R, Silu<R>>, gate_backward<R, Gelu<R>>, gate_backward<R, GeluTanh<R>>, gate_backward<R, Relu<R>>,
     gate_backward<R, Relu2<R>>, gate_backward<R, ClampedSwish<R>, true>},
    softmax<R>,
    exp_minus<R>,
    softmax_backward<R>,
    softcap<R>,
    softcap_backward<R>,
    round_group<R>,
    round_group_backward<R>,
    round_to_levels<R>,
    round_to_levels_backward<R>,
};

}  // namespace
}  // namespace nibble::ops
