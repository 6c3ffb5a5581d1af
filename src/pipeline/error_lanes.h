// The loops behind error_sums.h, written once and compiled for each instruction set: sixteen independent sums, so that
// every vector width gives the same numbers. Plain C: only <stdint.h> may be included here.
#pragma once

#include <stdint.h>

namespace nibble::pipeline {

struct LaneSums {
  double w2, v2, e2;
};

// One instruction set's loops.
struct ErrorLoops {
  // Sums over at most 2048 values.
  LaneSums (*sum_block)(const float* w, const float* v, int64_t n) noexcept;
  // Is any of the values NaN or infinite?
  bool (*any_not_finite)(const float* values, int64_t n) noexcept;
};

const ErrorLoops& error_loops_avx2() noexcept;

namespace {  // a copy of its own for each file that includes this

inline LaneSums lanes_sum_block(const float* w, const float* v, int64_t n) noexcept {
  constexpr int kLanes = 16;
  float w2[kLanes] = {}, v2[kLanes] = {}, e2[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) {
      const float a = w[i + k];
      const float b = v[i + k];
      w2[k] += a * a;
      v2[k] += b * b;
      e2[k] += (a - b) * (a - b);
    }
  }
  LaneSums sums = {0, 0, 0};
  for (int k = 0; k < kLanes; ++k) {
    sums.w2 += static_cast<double>(w2[k]);
    sums.v2 += static_cast<double>(v2[k]);
    sums.e2 += static_cast<double>(e2[k]);
  }
  for (; i < n; ++i) {
    const double a = static_cast<double>(w[i]);
    const double b = static_cast<double>(v[i]);
    sums.w2 += a * a;
    sums.v2 += b * b;
    sums.e2 += (a - b) * (a - b);
  }
  return sums;
}

inline bool lanes_any_not_finite(const float* values, int64_t n) noexcept {
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, values + i, sizeof bits);
    bad |= (bits & 0x7F800000u) == 0x7F800000u ? 1u : 0u;  // all exponent bits: infinity and NaN, nothing else
  }
  return bad != 0;
}

}  // namespace

}  // namespace nibble::pipeline
