// Keys and values into the cache, rounded as its type asks.
#pragma once

#include <stdint.h>

#include "ops/kv_layout.h"
#include "ops/lane_math.h"
#include "ops/lane_rotation.h"

namespace nibble::ops {
namespace {

void store_k_f32(void* block, int64_t slot, const float* x, int head_dim, float /*scale*/) noexcept {
  float* dst = static_cast<float*>(block) + slot / kLanes * head_dim * kLanes + slot % kLanes;
  for (int d = 0; d < head_dim; ++d) dst[d * kLanes] = x[d];
}

void store_v_f32(void* block, int64_t slot, const float* x, int head_dim, float /*scale*/) noexcept {
  const int64_t padded = padded_head(head_dim);
  float* dst = static_cast<float*>(block) + slot * padded;
  for (int64_t d = 0; d < padded; ++d) dst[d] = d < head_dim ? x[d] : 0.0f;
}

void store_k_f16(void* block, int64_t slot, const float* x, int head_dim, float /*scale*/) noexcept {
  uint16_t* dst = static_cast<uint16_t*>(block) + slot / kLanes * head_dim * kLanes + slot % kLanes;
  for (int d = 0; d < head_dim; ++d) dst[d * kLanes] = Lanes::f16_bits(x[d]);
}

void store_v_f16(void* block, int64_t slot, const float* x, int head_dim, float /*scale*/) noexcept {
  const int64_t padded = padded_head(head_dim);
  uint16_t* dst = static_cast<uint16_t*>(block) + slot * padded;
  for (int64_t d = 0; d < padded; ++d) dst[d] = d < head_dim ? Lanes::f16_bits(x[d]) : uint16_t{0};
}

// Halves are clamped to the largest finite one.
inline uint16_t finite_half(float x) {
  constexpr float kLargest = 65504.0f;
  return Lanes::f16_bits(x > kLargest ? kLargest : x < -kLargest ? -kLargest : x);
}

inline float inverse_of(uint16_t scale) {
  const float value = Lanes::f16_value(scale);
  return value > 0 ? 1.0f / value : 0.0f;
}

inline float largest_magnitude(const float* x, int n) {
  float largest = 0;
  for (int i = 0; i < n; ++i) {
    const float magnitude = x[i] < 0 ? -x[i] : x[i];
    if (magnitude > largest) largest = magnitude;
  }
  return largest;
}

inline int nearest(float x) { return static_cast<int>(x < 0 ? x - 0.5f : x + 0.5f); }

// Each rounds a scale group, x: (n), to one code a byte, and gives its halves. `scale`: of types where it is given.
struct RoundInt8 {
  static void round(const float* x, int n, float /*scale*/, uint8_t* codes, uint16_t* halves) {
    halves[0] = finite_half(largest_magnitude(x, n) / 127.0f);
    const float inverse = inverse_of(halves[0]);
    for (int i = 0; i < n; ++i) {
      const int code = nearest(x[i] * inverse);
      codes[i] = static_cast<uint8_t>(code > 127 ? 127 : code < -127 ? -127 : code);
    }
  }
};

// E4M3 of x, |x| rounded to nearest even and at most 448.
inline uint8_t e4m3_bits(float x) {
  const float magnitude = x < 0 ? -x : x;
  const uint8_t sign = x < 0 ? 0x80 : 0;
  if (magnitude >= 448.0f) return sign | 0x7E;
  if (magnitude < 0x1p-6f) {  // multiples of 2^-9
    const float shifted = magnitude * 0x1p9f + 0x1p23f;
    uint32_t bits;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    return static_cast<uint8_t>(sign | (bits & 0xF));
  }
  uint32_t bits;
  __builtin_memcpy(&bits, &magnitude, sizeof bits);
  bits += 0x7FFFF + (bits >> 20 & 1);
  return static_cast<uint8_t>(sign | ((bits >> 20) - (120u << 3)));
}

struct RoundE4m3 {
  static void round(const float* x, int n, float /*scale*/, uint8_t* codes, uint16_t* halves) {
    halves[0] = finite_half(largest_magnitude(x, n) / (448.0f / 256.0f));
    const float inverse = inverse_of(halves[0]) * 256.0f;
    for (int i = 0; i < n; ++i) codes[i] = e4m3_bits(x[i] * inverse);
  }
};

struct RoundInt4 {
  static void round(const float* x, int n, float /*scale*/, uint8_t* codes, uint16_t* halves) {
    float least = x[0], most = x[0];
    for (int i = 1; i < n; ++i) {
      least = x[i] < least ? x[i] : least;
      most = x[i] > most ? x[i] : most;
    }
    halves[1] = finite_half(least);
    const float from = Lanes::f16_value(halves[1]);
    halves[0] = finite_half((most - least) / 15.0f);
    const float inverse = inverse_of(halves[0]);
    for (int i = 0; i < n; ++i) {
      const int code = nearest((x[i] - from) * inverse);
      codes[i] = static_cast<uint8_t>(code > 15 ? 15 : code < 0 ? 0 : code);
    }
  }
};

// With a given scale, in compressed-tensors' way (lifecycle/forward_helpers.py): x / scale to nearest even, held within
// the codes. The scale is the half that attention reads.
struct FixedInt8 {
  static void round(const float* x, int n, float scale, uint8_t* codes, uint16_t* halves) {
    halves[0] = finite_half(scale);
    const float step = Lanes::f16_value(halves[0]);
    for (int i = 0; i < n; ++i) {
      const float level = x[i] / step;
      const float held = level > 127.0f ? 127.0f : level < -128.0f ? -128.0f : level;
      codes[i] = static_cast<uint8_t>(static_cast<int>((held + 0x1.8p23f) - 0x1.8p23f));
    }
  }
};

struct FixedE4m3 {
  static void round(const float* x, int n, float scale, uint8_t* codes, uint16_t* halves) {
    halves[0] = finite_half(scale * 256.0f);
    const float step = Lanes::f16_value(halves[0]) / 256.0f;
    for (int i = 0; i < n; ++i) codes[i] = e4m3_bits(x[i] / step);
  }
};

// A head as codes and halves, (scale groups, halves of each).
struct RoundedHead {
  uint8_t codes[kMostHead + 2 * kLanes];  // zeros up to whole rows of values
  uint16_t halves[kMostHead / kLanes];
};

template <KvType kType, typename Round>
inline void round_head(const float* x, int head_dim, float scale, RoundedHead& out) {
  constexpr KvFormat kFormat = kv_format(kType);
  alignas(64) float turned[kFormat.rotated ? kMostHead : 1];
  if constexpr (kFormat.rotated) {
    for (int d = 0; d < head_dim; ++d) turned[d] = x[d];
    rotate_head(turned, head_dim);
    x = turned;
  }
  for (int d = 0, group = 0; d < head_dim; d += kFormat.group, ++group) {
    const int n = head_dim - d < kFormat.group ? head_dim - d : kFormat.group;
    Round::round(x + d, n, scale, out.codes + d, out.halves + group * kFormat.halves);
  }
  for (int d = head_dim; d < head_dim + 2 * kLanes; ++d) out.codes[d] = 0;
}

template <KvType kType, typename Round>
void store_k(void* block, int64_t slot, const float* x, int head_dim, float scale) noexcept {
  constexpr KvFormat kFormat = kv_format(kType);
  RoundedHead head;
  round_head<kType, Round>(x, head_dim, scale, head);
  char* start = at(block, slot / kLanes * key_group_bytes(kFormat, head_dim));
  auto* codes = reinterpret_cast<uint8_t*>(start) + slot % kLanes;
  auto* halves = reinterpret_cast<uint16_t*>(start + key_code_bytes(kFormat, head_dim)) + slot % kLanes;
  if constexpr (kFormat.bits == 8) {
    for (int d = 0; d < head_dim; ++d) codes[d * kLanes] = head.codes[d];
  } else {
    for (int d = 0; d < head_dim; d += kFormat.group) {
      const int n = head_dim - d < kFormat.group ? head_dim - d : kFormat.group;
      const int first = (n + 1) / 2;
      for (int j = 0; j < first; ++j) {
        const int high = first + j < n ? head.codes[d + first + j] : 0;
        codes[(d / 2 + j) * kLanes] = static_cast<uint8_t>(head.codes[d + j] | high << 4);
      }
    }
  }
  for (int64_t i = 0; i < kv_halves(kFormat, head_dim); ++i) halves[i * kLanes] = head.halves[i];
}

template <KvType kType, typename Round>
void store_v(void* block, int64_t slot, const float* x, int head_dim, float scale) noexcept {
  constexpr KvFormat kFormat = kv_format(kType);
  RoundedHead head;
  round_head<kType, Round>(x, head_dim, scale, head);
  const int64_t row_bytes = value_row_bytes(kFormat, head_dim);
  auto* codes = reinterpret_cast<uint8_t*>(at(block, slot * row_bytes));
  auto* halves = reinterpret_cast<uint16_t*>(at(block, kKeyBlock * row_bytes)) + slot;
  if constexpr (kFormat.bits == 8) {
    for (int64_t d = 0; d < row_bytes; ++d) codes[d] = head.codes[d];
  } else {
    for (int64_t i = 0; i < row_bytes; ++i) {
      const uint8_t* low = head.codes + i / kLanes * 2 * kLanes + i % kLanes;
      codes[i] = static_cast<uint8_t>(low[0] | low[kLanes] << 4);
    }
  }
  for (int64_t i = 0; i < kv_halves(kFormat, head_dim); ++i) halves[i * kKeyBlock] = head.halves[i];
}

}  // namespace
}  // namespace nibble::ops
