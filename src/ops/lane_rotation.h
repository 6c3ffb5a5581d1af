// Rotation of a head by a Walsh-Hadamard matrix, which is symmetric and its own inverse: what an outlier dimension
// holds is spread over the others, scores of rotated queries and keys are those of the plain ones.
#pragma once

#include <stdint.h>

#include "ops/kv_layout.h"
#include "ops/lane_math.h"

namespace nibble::ops {
namespace {

// x: (n), n a power of two, at least 16.
inline void rotate_run(float* x, int64_t n) {
  for (int64_t half = n / 2; half >= kLanes; half /= 2) {
    for (int64_t begin = 0; begin < n; begin += 2 * half) {
      for (float* p = x + begin; p < x + begin + half; p += kLanes) {
        const V a = Lanes::load(p), b = Lanes::load(p + half);
        Lanes::store(p, Lanes::add(a, b));
        Lanes::store(p + half, Lanes::sub(a, b));
      }
    }
  }
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t begin = 0; begin < n; begin += 2 * half) {
      for (float* p = x + begin; p < x + begin + half; ++p) {
        const float a = p[0], b = p[half];
        p[0] = a + b;
        p[half] = a - b;
      }
    }
  }
  const V scale = Lanes::broadcast(1.0f / __builtin_sqrtf(static_cast<float>(n)));
  for (int64_t i = 0; i < n; i += kLanes) Lanes::store(x + i, Lanes::mul(Lanes::load(x + i), scale));
}

// In runs of kv_run(head_dim).
inline void rotate_head(float* x, int head_dim) {
  const int64_t run = kv_run(head_dim);
  for (int64_t begin = 0; begin < head_dim; begin += run) rotate_run(x + begin, run);
}

}  // namespace
}  // namespace nibble::ops
