// The operations, written once over sixteen lanes. An instruction set's file defines `Lanes` before it includes this
// and gets `kTable`. Lanes: kPanelVectors; load, store, load_f16, load_i8, load_e4m3 (values over 2^8, no NaN),
// load_u4<half> (the low or high nibbles of sixteen bytes), broadcast, add, sub, mul, div, fma (a * b +
// c), max, min, round, exp2_int (2^n for integral n), keep_not_less(x, a, b) (x where a >= b, else 0), f16_bits,
// f16_value.
#pragma once

#include "ops/lane_activation.h"
#include "ops/lane_attention.h"
#include "ops/lane_math.h"
#include "ops/lane_store.h"
#include "ops/op_table.h"

namespace nibble::ops {
namespace {

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* out) noexcept {
  V sum = Lanes::broadcast(0.0f);
  for (int64_t i = 0; i < n; i += kLanes) {
    const V v = load_some(x + i, n - i, 0.0f);
    sum = Lanes::fma(v, v, sum);
  }
  const V scale = Lanes::broadcast(1.0f / __builtin_sqrtf(sum_lanes(sum) / static_cast<float>(n) + eps));
  for (int64_t i = 0; i < n; i += kLanes) {
    const V v = Lanes::mul(load_some(x + i, n - i, 0.0f), scale);
    store_some(out + i, Lanes::mul(v, load_some(weight + i, n - i, 0.0f)), n - i);
  }
}

// Two passes: the mean, then the variance about it.
void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* out) noexcept {
  V sum = Lanes::broadcast(0.0f);
  for (int64_t i = 0; i < n; i += kLanes) sum = Lanes::add(sum, load_some(x + i, n - i, 0.0f));
  const float mean = sum_lanes(sum) / static_cast<float>(n);
  const V center = Lanes::broadcast(mean);
  V square = Lanes::broadcast(0.0f);
  for (int64_t i = 0; i < n; i += kLanes) {
    const V v = Lanes::sub(load_some(x + i, n - i, mean), center);
    square = Lanes::fma(v, v, square);
  }
  const V scale = Lanes::broadcast(1.0f / __builtin_sqrtf(sum_lanes(square) / static_cast<float>(n) + eps));
  for (int64_t i = 0; i < n; i += kLanes) {
    const V v = Lanes::mul(Lanes::sub(load_some(x + i, n - i, 0.0f), center), scale);
    V y = Lanes::mul(v, load_some(weight + i, n - i, 0.0f));
    if (bias != nullptr) y = Lanes::add(y, load_some(bias + i, n - i, 0.0f));
    store_some(out + i, y, n - i);
  }
}

void rotate(float* x, const float* cos, const float* sin, int64_t pairs) noexcept {
  for (int64_t i = 0; i < pairs; i += kLanes) {
    const int64_t left = pairs - i;
    const V a = load_some(x + i, left, 0.0f);
    const V b = load_some(x + pairs + i, left, 0.0f);
    const V c = load_some(cos + i, left, 0.0f);
    const V s = load_some(sin + i, left, 0.0f);
    store_some(x + i, Lanes::sub(Lanes::mul(a, c), Lanes::mul(b, s)), left);
    store_some(x + pairs + i, Lanes::fma(b, c, Lanes::mul(a, s)), left);
  }
}

void add(float* x, const float* y, int64_t n) noexcept {
  for (int64_t i = 0; i < n; i += kLanes) {
    store_some(x + i, Lanes::add(load_some(x + i, n - i, 0.0f), load_some(y + i, n - i, 0.0f)), n - i);
  }
}

void scale(float* x, float factor, int64_t n) noexcept {
  const V f = Lanes::broadcast(factor);
  for (int64_t i = 0; i < n; i += kLanes) store_some(x + i, Lanes::mul(load_some(x + i, n - i, 0.0f), f), n - i);
}

void add_products(const float* factors, int64_t rank, const float* b, int64_t ldb, int64_t n, float* out) noexcept {
  constexpr int64_t kBlock = 4 * kLanes;
  int64_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    V sum[4];
    for (int64_t j = 0; j < 4; ++j) sum[j] = Lanes::load(out + i + j * kLanes);
    for (int64_t k = 0; k < rank; ++k) {
      const V factor = Lanes::broadcast(factors[k]);
      for (int64_t j = 0; j < 4; ++j) sum[j] = Lanes::fma(Lanes::load(b + k * ldb + i + j * kLanes), factor, sum[j]);
    }
    for (int64_t j = 0; j < 4; ++j) Lanes::store(out + i + j * kLanes, sum[j]);
  }
  for (; i < n; i += kLanes) {
    V sum = load_some(out + i, n - i, 0.0f);
    for (int64_t k = 0; k < rank; ++k)
      sum = Lanes::fma(load_some(b + k * ldb + i, n - i, 0.0f), Lanes::broadcast(factors[k]), sum);
    store_some(out + i, sum, n - i);
  }
}

void softcap(float* x, float cap, int64_t n) noexcept {
  for (int64_t i = 0; i < n; i += kLanes) store_some(x + i, softcap_lanes(load_some(x + i, n - i, 0.0f), cap), n - i);
}

template <KvType kType, typename Round, typename Load>
constexpr KvOps rounded_kv() {
  return {store_k<kType, Round>, store_v<kType, Round>, attend<kType, Load>};
}

constexpr OpTable kTable = {
    rms_norm,
    layer_norm,
    rotate,
    add,
    scale,
    add_products,
    softcap,
    {gate_by<silu_lanes>, gate_by<gelu_lanes>, gate_by<gelu_tanh_lanes>, gate_by<relu_lanes>, gate_by<relu2_lanes>,
     gate_by_clamped_swish},
    {activate_by<silu_lanes>, activate_by<gelu_lanes>, activate_by<gelu_tanh_lanes>, activate_by<relu_lanes>,
     activate_by<relu2_lanes>, activate_by<clamped_swish_lanes>},
    {{store_k_f32, store_v_f32, attend<KvType::kF32, LoadF32>},
     {store_k_f16, store_v_f16, attend<KvType::kF16, LoadF16>},
     rounded_kv<KvType::kQ8_0, RoundInt8, LoadI8>(),
     rounded_kv<KvType::kInt8, RoundInt8, LoadI8>(),
     rounded_kv<KvType::kFp8, RoundE4m3, LoadE4m3>(),
     rounded_kv<KvType::kInt4, RoundInt4, LoadU4<0>>(),
     rounded_kv<KvType::kInt8H, RoundInt8, LoadI8>(),
     rounded_kv<KvType::kFp8H, RoundE4m3, LoadE4m3>(),
     rounded_kv<KvType::kInt4H, RoundInt4, LoadU4<0>>(),
     rounded_kv<KvType::kInt8Static, FixedInt8, LoadI8>(),
     rounded_kv<KvType::kFp8Static, FixedE4m3, LoadE4m3>()},
};

}  // namespace
}  // namespace nibble::ops
