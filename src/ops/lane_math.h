// Vectors of sixteen lanes, as an instruction set's file defines `Lanes`, and what is made of their primitives.
#pragma once

#include <stdint.h>

#include "ops/kv_layout.h"

namespace nibble::ops {
namespace {

using V = Lanes::Vector;

inline char* at(void* base, int64_t offset) { return static_cast<char*>(base) + offset; }
inline const char* at(const void* base, int64_t offset) { return static_cast<const char*>(base) + offset; }

inline V load_some(const float* x, int64_t n, float fill) {
  if (n >= kLanes) return Lanes::load(x);
  alignas(64) float buffer[kLanes];
  for (int i = 0; i < kLanes; ++i) buffer[i] = i < n ? x[i] : fill;
  return Lanes::load(buffer);
}

inline void store_some(float* x, V v, int64_t n) {
  if (n >= kLanes) return Lanes::store(x, v);
  alignas(64) float buffer[kLanes];
  Lanes::store(buffer, v);
  for (int i = 0; i < n; ++i) x[i] = buffer[i];
}

inline float sum_lanes(V v) {
  alignas(64) float lane[kLanes];
  Lanes::store(lane, v);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  }
  return lane[0];
}

inline float max_lanes(V v) {
  alignas(64) float lane[kLanes];
  Lanes::store(lane, v);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
  }
  return lane[0];
}

// exp(x), x <= 88; exactly 0 below -87. Cody-Waite reduction and the polynomial of Cephes' expf, 2 ulp.
inline V exp_lanes(V x) {
  const V low = Lanes::broadcast(-87.0f);
  const V clamped = Lanes::max(x, low);
  const V n = Lanes::round(Lanes::mul(clamped, Lanes::broadcast(1.44269504088896341f)));
  V r = Lanes::fma(n, Lanes::broadcast(-0.693359375f), clamped);
  r = Lanes::fma(n, Lanes::broadcast(2.12194440e-4f), r);
  V p = Lanes::broadcast(1.9875691500e-4f);
  p = Lanes::fma(p, r, Lanes::broadcast(1.3981999507e-3f));
  p = Lanes::fma(p, r, Lanes::broadcast(8.3334519073e-3f));
  p = Lanes::fma(p, r, Lanes::broadcast(4.1665795894e-2f));
  p = Lanes::fma(p, r, Lanes::broadcast(1.6666665459e-1f));
  p = Lanes::fma(p, r, Lanes::broadcast(5.0000001201e-1f));
  p = Lanes::add(Lanes::fma(Lanes::mul(p, r), r, r), Lanes::broadcast(1.0f));
  return Lanes::keep_not_less(Lanes::mul(p, Lanes::exp2_int(n)), x, low);
}

}  // namespace
}  // namespace nibble::ops
