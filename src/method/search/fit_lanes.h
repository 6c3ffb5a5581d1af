// Vectors of kWidth lanes, as search_<isa>.cpp defines them, and what is made of their primitives.
#pragma once

#include "method/search/fit.h"

namespace nibble::method::search {
namespace {

constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer, ties to even
constexpr float kTiny = 1e-30f;

inline Vec splat(float value) { return value - Vec{}; }
inline Vec load(const float* src) { return *reinterpret_cast<const VecUnaligned*>(src); }
inline void store(float* dst, Vec value) { *reinterpret_cast<VecUnaligned*>(dst) = value; }
inline Vec select(Mask mask, Vec yes, Vec no) { return mask ? yes : no; }
inline Vec absolute(Vec v) { return vmax(v, -v); }
inline Vec round_near(Vec v) { return (v + kMagic) - kMagic; }
inline Vec clamp(Vec v, Vec lo, Vec hi) { return vmin(vmax(v, lo), hi); }
// a / b, or 0 where |b| is nothing.
inline Vec ratio(Vec a, Vec b) {
  const Mask usable = absolute(b) > kTiny;
  return select(usable, a / select(usable, b, splat(1.0f)), Vec{});
}
// The nearest f16 (to 11 significant bits by Veltkamp's splitting, to multiples of 2^-24 below 2^-14).
inline Vec round_f16(Vec v) {
  const Vec limited = clamp(v, splat(-65504.0f), splat(65504.0f));
  const Vec big = limited * 8193.0f;
  const Vec normal = big - (big - limited);
  const Vec small = (limited + 0.75f) - 0.75f;
  return select(absolute(limited) < 0x1p-14f, small, normal);
}

// Rows of a kWidth x kWidth matrix to its columns: in stage `step` the lanes with that bit change places with the rows.
template <int... kLane>
struct LaneList {};
template <int kCount, int... kLane>
struct CountLanes : CountLanes<kCount - 1, kCount - 1, kLane...> {};
template <int... kLane>
struct CountLanes<0, kLane...> {
  using List = LaneList<kLane...>;
};

template <int kStep, int... kLane>
inline void exchange(Vec& a, Vec& b, LaneList<kLane...>) {
  const Vec low = __builtin_shufflevector(a, b, ((kLane & kStep) != 0 ? kWidth + kLane - kStep : kLane)...);
  b = __builtin_shufflevector(a, b, ((kLane & kStep) != 0 ? kWidth + kLane : kLane + kStep)...);
  a = low;
}

template <int kStep = 1>
inline void transpose(Vec* rows) {
  if constexpr (kStep < kWidth) {
    for (int i = 0; i < kWidth; ++i) {
      if ((i & kStep) == 0) exchange<kStep>(rows[i], rows[i + kStep], CountLanes<kWidth>::List{});
    }
    transpose<2 * kStep>(rows);
  }
}

inline void fill(float* dst, int n, float value) {
  for (int i = 0; i < n; ++i) dst[i] = value;
}

inline float f16_value(float value) {
  alignas(64) float out[kWidth];
  store(out, round_f16(splat(value)));
  return out[0];
}

}  // namespace
}  // namespace nibble::method::search
