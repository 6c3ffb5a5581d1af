// Keys and values into the cache, rounded as its type asks.
#pragma once

#include <stdint.h>

#include "ops/kv_layout.h"
#include "ops/lane_math.h"

namespace nibble::ops {
namespace {

void store_k_f32(void* block, int64_t slot, const float* x, int head_dim) noexcept {
  float* dst = static_cast<float*>(block) + slot / kLanes * head_dim * kLanes + slot % kLanes;
  for (int d = 0; d < head_dim; ++d) dst[d * kLanes] = x[d];
}

void store_v_f32(void* block, int64_t slot, const float* x, int head_dim) noexcept {
  const int64_t padded = padded_head(head_dim);
  float* dst = static_cast<float*>(block) + slot * padded;
  for (int64_t d = 0; d < padded; ++d) dst[d] = d < head_dim ? x[d] : 0.0f;
}

void store_k_f16(void* block, int64_t slot, const float* x, int head_dim) noexcept {
  uint16_t* dst = static_cast<uint16_t*>(block) + slot / kLanes * head_dim * kLanes + slot % kLanes;
  for (int d = 0; d < head_dim; ++d) dst[d * kLanes] = Lanes::f16_bits(x[d]);
}

void store_v_f16(void* block, int64_t slot, const float* x, int head_dim) noexcept {
  const int64_t padded = padded_head(head_dim);
  uint16_t* dst = static_cast<uint16_t*>(block) + slot * padded;
  for (int64_t d = 0; d < padded; ++d) dst[d] = d < head_dim ? Lanes::f16_bits(x[d]) : uint16_t{0};
}

// Rounds up to 32 numbers to int8 codes, `stride` bytes apart; returns the scale as half bits.
inline uint16_t round_group(const float* x, int n, int8_t* codes, int64_t stride) {
  float largest = 0;
  for (int i = 0; i < n; ++i) {
    const float magnitude = x[i] < 0 ? -x[i] : x[i];
    if (magnitude > largest) largest = magnitude;
  }
  const uint16_t scale = Lanes::f16_bits(largest / 127.0f);
  const float value = Lanes::f16_value(scale);
  const float inverse = value > 0 ? 1.0f / value : 0.0f;
  for (int i = 0; i < n; ++i) {
    const float scaled = x[i] * inverse;
    const int code = static_cast<int>(scaled < 0 ? scaled - 0.5f : scaled + 0.5f);
    codes[i * stride] = static_cast<int8_t>(code > 127 ? 127 : code < -127 ? -127 : code);
  }
  return scale;
}

void store_k_q8(void* block, int64_t slot, const float* x, int head_dim) noexcept {
  char* group_start = at(block, slot / kLanes * key_group_bytes(KvType::kQ8_0, head_dim));
  const int64_t lane = slot % kLanes;
  auto* codes = reinterpret_cast<int8_t*>(group_start) + lane;
  auto* scales = reinterpret_cast<uint16_t*>(group_start + int64_t{head_dim} * kLanes) + lane;
  for (int d = 0, group = 0; d < head_dim; d += kKvGroup, ++group) {
    const int n = head_dim - d < kKvGroup ? head_dim - d : kKvGroup;
    scales[group * kLanes] = round_group(x + d, n, codes + d * kLanes, kLanes);
  }
}

void store_v_q8(void* block, int64_t slot, const float* x, int head_dim) noexcept {
  const int64_t padded = padded_head(head_dim);
  auto* codes = reinterpret_cast<int8_t*>(at(block, slot * padded));
  auto* scales = reinterpret_cast<uint16_t*>(at(block, kKeyBlock * padded)) + slot;
  for (int d = 0, group = 0; d < head_dim; d += kKvGroup, ++group) {
    const int n = head_dim - d < kKvGroup ? head_dim - d : kKvGroup;
    scales[group * kKeyBlock] = round_group(x + d, n, codes + d, 1);
  }
  for (int64_t d = head_dim; d < padded; ++d) codes[d] = 0;
}

}  // namespace
}  // namespace nibble::ops
