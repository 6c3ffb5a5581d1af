// Numbers of the cache as lanes, and products of rows with vectors of them.
#pragma once

#include <stdint.h>

#include "ops/kv_layout.h"
#include "ops/lane_math.h"

namespace nibble::ops {
namespace {

struct LoadF32 {
  static V load(const char* p) { return Lanes::load(reinterpret_cast<const float*>(p)); }
};
struct LoadF16 {
  static V load(const char* p) { return Lanes::load_f16(reinterpret_cast<const uint16_t*>(p)); }
};
struct LoadI8 {
  static V load(const char* p) { return Lanes::load_i8(reinterpret_cast<const int8_t*>(p)); }
};
struct LoadE4m3 {  // over 2^8
  static V load(const char* p) { return Lanes::load_e4m3(reinterpret_cast<const uint8_t*>(p)); }
};
template <int kHalf>
struct LoadU4 {  // the low or the high codes of sixteen bytes
  static V load(const char* p) { return Lanes::load_u4<kHalf>(reinterpret_cast<const uint8_t*>(p)); }
};

template <int kValue>
struct Count {
  static constexpr int value = kValue;
};

// What attention must know of a type: how its numbers are loaded and which share a scale.
template <int kBits, int kGroup, int kHalves, typename NumberLoad>
struct Codes {
  using Load = NumberLoad;
  static constexpr KvFormat kFormat = {"", kBits, kGroup, kHalves, false};
  static constexpr bool kNibbles = kBits == 4;
  // Groups of sixteen keys at a time: two sets of sums, if there are scales.
  static constexpr int kScoreVectors = kGroup > 0 && Lanes::kPanelVectors > 2 ? 2 : Lanes::kPanelVectors;
  static constexpr int kStep = kLanes * kFormat.bits / 8;  // bytes of sixteen numbers
};

// Vector v of a row of vectors, from a pointer to its first.
template <typename Load>
struct Apart {
  int64_t across;  // bytes from one to the next
  V operator()(const char* p, int v) const { return Load::load(p + v * across); }
};
// Of values in 4 bits, two share sixteen bytes; kFirst: whether the first is low (0) or high (1).
template <int kFirst>
struct Paired {
  V operator()(const char* p, int v) const {
    const char* pair = p + (kFirst + v) / 2 * kLanes;
    return (kFirst + v) % 2 == 0 ? LoadU4<0>::load(pair) : LoadU4<1>::load(pair);
  }
};

constexpr int64_t kLine = 64;  // bytes of a cache line

// acc[r][v] += sum over i in [begin, end) of a[r][i] * b(i, v), where b(i, v) is vector v at b + i * step. Meanwhile
// the lines that begin at next + i * step are fetched into the second-level cache.
template <int kRows, int kVectors, typename Row>
inline void panel(const float* a, int64_t a_stride, const char* b, int64_t step, Row vector, int64_t begin, int64_t end,
                  const char* next, V (&acc)[kRows][kVectors]) {
#pragma GCC unroll 2
  for (int64_t i = begin; i < end; ++i) {
    if (i * step % kLine == 0) __builtin_prefetch(next + i * step, 0, 2);
    V row[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) row[v] = vector(b + i * step, v);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const V factor = Lanes::broadcast(a[r * a_stride + i]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[r][v] = Lanes::fma(factor, row[v], acc[r][v]);
    }
  }
}

}  // namespace
}  // namespace nibble::ops
