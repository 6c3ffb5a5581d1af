// Vectors of 64 bytes of f32 or f64 by the compiler's own extension, so that one text serves every instruction set, and
// the functions that the operations are made of with their derivatives.
#pragma once

#include <math.h>
#include <stdint.h>

#include "ops/op_table.h"

namespace nibble::ops {
namespace {

typedef float FloatLanes __attribute__((vector_size(64)));
typedef int32_t IntLanes __attribute__((vector_size(64)));
typedef double DoubleLanes __attribute__((vector_size(64)));
typedef float FloatLanesAnywhere __attribute__((vector_size(64), aligned(4)));
typedef double DoubleLanesAnywhere __attribute__((vector_size(64), aligned(8)));

template <typename Real>
struct LanesOf;
template <>
struct LanesOf<float> {
  using Vector = FloatLanes;
  using Anywhere = FloatLanesAnywhere;
};
template <>
struct LanesOf<double> {
  using Vector = DoubleLanes;
  using Anywhere = DoubleLanesAnywhere;
};
template <typename Real>
using V = typename LanesOf<Real>::Vector;
template <typename Real>
constexpr int kWidth = static_cast<int>(64 / sizeof(Real));

template <typename Real>
inline V<Real> splat(Real x) {
  return x - V<Real>{};
}

template <typename Real>
inline V<Real> load(const Real* p, int64_t n, Real fill = 0) {
  if (n >= kWidth<Real>) return *reinterpret_cast<const typename LanesOf<Real>::Anywhere*>(p);
  V<Real> v = splat(fill);
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}

template <typename Real>
inline void store(Real* p, V<Real> v, int64_t n) {
  if (n >= kWidth<Real>) {
    *reinterpret_cast<typename LanesOf<Real>::Anywhere*>(p) = v;
    return;
  }
  for (int i = 0; i < n; ++i) p[i] = v[i];
}

template <typename Real>
inline Real sum_of(V<Real> v) {
  alignas(64) Real lane[kWidth<Real>];
  *reinterpret_cast<V<Real>*>(lane) = v;
  for (int width = kWidth<Real> / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  }
  return lane[0];
}

// exp(x), 0 below -87, x <= 88: Cody-Waite reduction and the polynomial of Cephes' expf. For f64 the library's.
inline FloatLanes exp_of(FloatLanes x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
  const FloatLanes low = splat(-87.0f), high = splat(88.0f);
  FloatLanes held = x < low ? low : x;
  held = held > high ? high : held;
  const FloatLanes shifted = held * 1.44269504088896341f + kMagic;
  const FloatLanes n = shifted - kMagic;
  const FloatLanes r = (held - n * 0.693359375f) + n * 2.12194440e-4f;
  FloatLanes p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const IntLanes exponent = (__builtin_convertvector(n, IntLanes) + 127) << 23;
  const FloatLanes value = p * reinterpret_cast<FloatLanes>(exponent);
  return x < low ? FloatLanes{} : value;
}
inline DoubleLanes exp_of(DoubleLanes x) {
  for (int i = 0; i < kWidth<double>; ++i) x[i] = exp(x[i]);
  return x;
}

template <typename Real>
inline V<Real> absolute(V<Real> x) {
  return x < Real{0} ? -x : x;
}
template <typename Real>
inline V<Real> least(V<Real> x, Real limit) {
  return x > limit ? splat(limit) : x;
}
template <typename Real>
inline V<Real> most(V<Real> x, Real limit) {
  return x < limit ? splat(limit) : x;
}

template <typename Real>
inline V<Real> logistic(V<Real> x) {
  return Real{1} / (Real{1} + exp_of(least<Real>(-x, 88)));
}

template <typename Real>
inline V<Real> tanh_of(V<Real> x) {
  const V<Real> e = exp_of(absolute<Real>(x) * Real{-2});
  const V<Real> t = (Real{1} - e) / (Real{1} + e);
  return x < Real{0} ? -t : t;
}

// Phi(x), the normal distribution's: after Abramowitz and Stegun 7.1.26 (error 1.5e-7) in f32.
inline FloatLanes normal_share(FloatLanes x) {
  const FloatLanes z = absolute<float>(x) * 0.70710678118654752f;
  const FloatLanes t = 1.0f / (z * 0.3275911f + 1.0f);
  FloatLanes p = splat(1.061405429f);
  p = p * t + -1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t + -0.284496736f;
  p = p * t + 0.254829592f;
  const FloatLanes half = p * t * 0.5f * exp_of(-z * z);
  return x < 0.0f ? half : 1.0f - half;
}
inline DoubleLanes normal_share(DoubleLanes x) {
  for (int i = 0; i < kWidth<double>; ++i) x[i] = 0.5 * erfc(-x[i] * 0.70710678118654752440);
  return x;
}

template <typename Real>
struct Pair {
  V<Real> value, slope;
};

template <typename Real>
struct Silu {
  static Pair<Real> at(V<Real> x) {
    const V<Real> s = logistic<Real>(x);
    return {x * s, s * (Real{1} + x * (Real{1} - s))};
  }
};
template <typename Real>
struct Gelu {
  static Pair<Real> at(V<Real> x) {
    const V<Real> share = normal_share(x);
    const V<Real> density = exp_of(x * x * Real{-0.5}) * static_cast<Real>(0.39894228040143268);
    return {x * share, share + x * density};
  }
};
template <typename Real>
struct GeluTanh {
  static Pair<Real> at(V<Real> x) {
    constexpr Real kTwice = static_cast<Real>(1.5957691216057308), kCubic = static_cast<Real>(0.044715);
    const V<Real> s = logistic<Real>(x * kTwice * (Real{1} + x * x * kCubic));
    return {x * s, s + x * s * (Real{1} - s) * kTwice * (Real{1} + x * x * (Real{3} * kCubic))};
  }
};
template <typename Real>
struct Relu {
  static Pair<Real> at(V<Real> x) { return {most<Real>(x, 0), x > Real{0} ? splat(Real{1}) : V<Real>{}}; }
};
template <typename Real>
struct Relu2 {
  static Pair<Real> at(V<Real> x) {
    const V<Real> p = most<Real>(x, 0);
    return {p * p, p * Real{2}};
  }
};
inline constexpr float kSwishLimit = 7.0f;
template <typename Real>
struct ClampedSwish {
  static Pair<Real> at(V<Real> x) {
    constexpr Real kSteep = static_cast<Real>(1.702), kLimit = kSwishLimit;
    const V<Real> y = least<Real>(x, kLimit);
    const V<Real> s = logistic<Real>(y * kSteep);
    const V<Real> slope = s * (Real{1} + y * kSteep * (Real{1} - s));
    return {y * s, x > kLimit ? V<Real>{} : slope};
  }
};

}  // namespace
}  // namespace nibble::ops
