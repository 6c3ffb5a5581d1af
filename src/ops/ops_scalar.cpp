#include <bit>
#include <cmath>

#include "tensor/half.h"

namespace nibble::ops {
namespace {

// For machines without AVX2: products and sums are rounded separately, everything else as on the others.
struct Lanes {
  struct Vector {
    float x[16];
  };
  static constexpr int kPanelVectors = 1;

  template <typename F>
  static Vector make(F&& value) {
    Vector v;
    for (int i = 0; i < 16; ++i) v.x[i] = value(i);
    return v;
  }
  static Vector load(const float* p) {
    return make([p](int i) { return p[i]; });
  }
  static void store(float* p, const Vector& v) {
    for (int i = 0; i < 16; ++i) p[i] = v.x[i];
  }
  static Vector load_f16(const std::uint16_t* p) {
    return make([p](int i) { return f16_to_f32(p[i]); });
  }
  static Vector load_i8(const std::int8_t* p) {
    return make([p](int i) { return static_cast<float>(p[i]); });
  }
  static Vector load_e4m3(const std::uint8_t* p) {  // as halves: sign, four of the exponent's five bits, mantissa
    return make([p](int i) { return f16_to_f32(static_cast<std::uint16_t>((p[i] & 0x80) << 8 | (p[i] & 0x7F) << 7)); });
  }
  template <int kHalf>
  static Vector load_u4(const std::uint8_t* p) {
    return make([p](int i) { return static_cast<float>(kHalf == 0 ? p[i] & 0x0F : p[i] >> 4); });
  }
  static Vector broadcast(float x) {
    return make([x](int) { return x; });
  }
  static Vector add(const Vector& a, const Vector& b) {
    return make([&](int i) { return a.x[i] + b.x[i]; });
  }
  static Vector sub(const Vector& a, const Vector& b) {
    return make([&](int i) { return a.x[i] - b.x[i]; });
  }
  static Vector mul(const Vector& a, const Vector& b) {
    return make([&](int i) { return a.x[i] * b.x[i]; });
  }
  static Vector div(const Vector& a, const Vector& b) {
    return make([&](int i) { return a.x[i] / b.x[i]; });
  }
  static Vector fma(const Vector& a, const Vector& b, const Vector& c) {
    return make([&](int i) { return a.x[i] * b.x[i] + c.x[i]; });
  }
  static Vector max(const Vector& a, const Vector& b) {
    return make([&](int i) { return a.x[i] > b.x[i] ? a.x[i] : b.x[i]; });
  }
  static Vector min(const Vector& a, const Vector& b) {
    return make([&](int i) { return a.x[i] < b.x[i] ? a.x[i] : b.x[i]; });
  }
  static Vector round(const Vector& a) {
    constexpr float kShift = 0x1.8p23f;  // adding it drops the fraction, to nearest even
    return make([&](int i) { return (a.x[i] + kShift) - kShift; });
  }
  static Vector exp2_int(const Vector& n) {
    return make([&](int i) { return std::bit_cast<float>((static_cast<std::int32_t>(n.x[i]) + 127) << 23); });
  }
  static Vector keep_not_less(const Vector& x, const Vector& a, const Vector& b) {
    return make([&](int i) { return a.x[i] >= b.x[i] ? x.x[i] : 0.0f; });
  }
  static std::uint16_t f16_bits(float x) { return f32_to_f16(x); }
  static float f16_value(std::uint16_t bits) { return f16_to_f32(bits); }
};

}  // namespace
}  // namespace nibble::ops

#include "ops/lane_kernels.h"

namespace nibble::ops {

const OpTable& scalar_ops() noexcept { return kTable; }

}  // namespace nibble::ops
