// Plain encodings: one number after another. Floats keep NaN and infinity where the type has them; integers round to
// nearest even and saturate, NaN gives 0; bool is value != 0.
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "encoding/encoding.h"
#include "tensor/half.h"

namespace nibble::encoding::plain {

namespace {

using DecodeRow = void (*)(const std::byte* src, float* dst, std::int64_t n) noexcept;
using EncodeRow = void (*)(const float* src, std::byte* dst, std::int64_t n) noexcept;

template <typename T, float (*kConvert)(T)>
void decode(const std::byte* src, float* dst, std::int64_t n) noexcept {
  for (std::int64_t i = 0; i < n; ++i) {
    T value;
    std::memcpy(&value, src + i * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
    dst[i] = kConvert(value);
  }
}

template <typename T, T (*kConvert)(float)>
void encode(const float* src, std::byte* dst, std::int64_t n) noexcept {
  for (std::int64_t i = 0; i < n; ++i) {
    const T value = kConvert(src[i]);
    std::memcpy(dst + i * static_cast<std::int64_t>(sizeof(T)), &value, sizeof(T));
  }
}

template <typename T>
float to_float(T value) {
  return static_cast<float>(value);
}

template <typename T>
T from_float(float value) {
  if (std::isnan(value)) return 0;
  const float rounded = std::nearbyint(value);
  // The largest integers of 32 and 64 bits round up to a power of two in f32, hence >=.
  if (rounded >= static_cast<float>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
  if (rounded <= static_cast<float>(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
  return static_cast<T>(rounded);
}

float bool_to_float(std::uint8_t value) { return value != 0 ? 1.0f : 0.0f; }
std::uint8_t bool_from_float(float value) { return value != 0 ? 1 : 0; }

// The nearest power of two by exponent (a scale format: no zero, no sign); zero gives the smallest, NaN stays NaN.
std::uint8_t f32_to_e8m0(float value) {
  if (std::isnan(value)) return 0xFF;
  int exponent = 0;
  const float fraction = std::frexp(std::fabs(value), &exponent);  // [0.5, 1) * 2^exponent
  if (std::isinf(value)) return 0xFE;
  if (fraction == 0) return 0;
  const int code = exponent - 1 + (fraction > 0.75f ? 1 : 0) + 127;
  return static_cast<std::uint8_t>(code < 0 ? 0 : code > 0xFE ? 0xFE : code);
}

// The one-byte floats by table.
template <float (*kConvert)(std::uint8_t)>
float by_table(std::uint8_t code) {
  static const auto table = [] {
    std::array<float, 256> values;
    for (std::size_t i = 0; i < 256; ++i) values[i] = kConvert(static_cast<std::uint8_t>(i));
    return values;
  }();
  return table[code];
}

std::uint8_t to_e4m3(float value) { return f32_to_f8_e4m3(value); }
std::uint8_t to_e5m2(float value) { return f32_to_f8_e5m2(value); }

double double_from_float(float value) { return static_cast<double>(value); }

void copy_decode(const std::byte* src, float* dst, std::int64_t n) noexcept {
  std::memcpy(dst, src, static_cast<std::size_t>(n) * sizeof(float));
}
void copy_encode(const float* src, std::byte* dst, std::int64_t n) noexcept {
  std::memcpy(dst, src, static_cast<std::size_t>(n) * sizeof(float));
}

EncodingInfo make(Dtype dtype, DecodeRow decode_row, EncodeRow encode_row) {
  EncodingInfo info;
  info.name = std::string(dtype_name(dtype));
  info.family = Family::kPlain;
  info.dtype = dtype;
  info.block_elements = 1;
  info.block_bytes = static_cast<int>(dtype_bytes(dtype));
  info.bits_per_weight = 8.0 * info.block_bytes;
  info.decode = decode_row;
  info.encode = encode_row;
  return info;
}

template <typename T>
EncodingInfo make_integer(Dtype dtype) {
  return make(dtype, decode<T, to_float<T>>, encode<T, from_float<T>>);
}

}  // namespace

std::span<const EncodingInfo> entries() {
  static const std::array infos = {
      make(Dtype::kF64, decode<double, to_float<double>>, encode<double, double_from_float>),
      make(Dtype::kF32, copy_decode, copy_encode),
      make(Dtype::kF16, convert_f16_to_f32, convert_f32_to_f16),
      make(Dtype::kBf16, convert_bf16_to_f32, convert_f32_to_bf16),
      make(Dtype::kF8E4m3, decode<std::uint8_t, by_table<f8_e4m3_to_f32>>, encode<std::uint8_t, to_e4m3>),
      make(Dtype::kF8E5m2, decode<std::uint8_t, by_table<f8_e5m2_to_f32>>, encode<std::uint8_t, to_e5m2>),
      make(Dtype::kF8E8m0, decode<std::uint8_t, e8m0_to_f32>, encode<std::uint8_t, f32_to_e8m0>),
      make_integer<std::int64_t>(Dtype::kI64),
      make_integer<std::int32_t>(Dtype::kI32),
      make_integer<std::int16_t>(Dtype::kI16),
      make_integer<std::int8_t>(Dtype::kI8),
      make_integer<std::uint64_t>(Dtype::kU64),
      make_integer<std::uint32_t>(Dtype::kU32),
      make_integer<std::uint16_t>(Dtype::kU16),
      make_integer<std::uint8_t>(Dtype::kU8),
      make(Dtype::kBool, decode<std::uint8_t, bool_to_float>, encode<std::uint8_t, bool_from_float>),
  };
  return infos;
}

}  // namespace nibble::encoding::plain
