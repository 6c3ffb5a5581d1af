// mxfp4, nvfp4: 4-bit floats E2M1 with a power-of-two scale per 32 values (OCP MX) or an E4M3 scale per 16.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "encoding/block_codec.h"
#include "encoding/e2m1.h"

namespace nibble::encoding::fp4 {

namespace {

// Values in q4_0's nibble order; the scale is halved, as the levels are doubled.
void put_nibbles(const std::byte* src, int half, float scale, float* dst) {
  for (int i = 0; i < half; ++i) {
    dst[i] = static_cast<float>(kE2m1Doubled[load_u8(src + i) & 15]) * scale;
    dst[half + i] = static_cast<float>(kE2m1Doubled[load_u8(src + i) >> 4]) * scale;
  }
}

// Back, to the nearest code of each value, the smaller one of a tie; zeros have no sign.
void put_nearest(const float* src, int half, float scale, std::byte* dst) {
  constexpr float kMiddles[7] = {0.5f, 1.5f, 2.5f, 3.5f, 5, 7, 10};  // between the doubled values
  std::int8_t code[32];
  for (int i = 0; i < 2 * half; ++i) {
    const float magnitude = scale > 0 ? std::fabs(src[i]) : 0;
    int level = 0;
    for (const float middle : kMiddles) level += magnitude > middle * scale ? 1 : 0;
    code[i] = static_cast<std::int8_t>(src[i] < 0 && level > 0 ? level + 8 : level);
  }
  pack_nibbles(code, half, 0, dst);
}

// Half of an E4M3 number whose sign bit does not count; as in GGML, 0x7F gives 0.
float half_ue4m3(std::uint8_t code) {
  if (code == 0x7F) return 0;
  const int exponent = code >> 3 & 15;
  const float mantissa = static_cast<float>(code & 7);
  if (exponent == 0) return mantissa * 0x1p-10f;
  const float power = std::bit_cast<float>(static_cast<std::uint32_t>(exponent - 8 + 127) << 23);
  return (1.0f + mantissa / 8.0f) * power;
}

// Bytes: e8m0 scale, 16 of nibbles.
void decode_mxfp4(const std::byte* src, float* dst, std::int64_t n) noexcept {
  for (; n > 0; n -= 32, src += 17, dst += 32) put_nibbles(src + 1, 16, half_e8m0(load_u8(src)), dst);
}

// The scale brings the largest magnitude into [4, 8), so that what is above 6 clips. The power of two below a magnitude
// is exact here, where GGML's logarithm may round up to the next, and zero is the smallest exponent, where GGML's wraps
// around (magnitudes below 2^-125).
void encode_mxfp4(const float* src, std::byte* dst, std::int64_t n) noexcept {
  for (; n > 0; n -= 32, src += 32, dst += 17) {
    float largest = 0;
    for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(src[i]));  // a NaN is passed over
    int exponent = 0;                                                             // largest is below 2^exponent
    std::frexp(std::isinf(largest) ? std::numeric_limits<float>::max() : largest, &exponent);
    const int scale = largest > 0 ? std::max(exponent - 1 - 2 + 127, 0) : 0;
    const float half = half_e8m0(static_cast<std::uint8_t>(scale));
    dst[0] = static_cast<std::byte>(scale);
    put_nearest(src, 16, half, dst + 1);
  }
}

// Bytes: 4 e4m3 scales, 4 runs of 8 of nibbles. A tensor's second scale is a tensor of its own in a GGUF file.
void decode_nvfp4(const std::byte* src, float* dst, std::int64_t n) noexcept {
  for (; n > 0; n -= 64, src += 36, dst += 64) {
    for (int i = 0; i < 4; ++i) put_nibbles(src + 4 + 8 * i, 8, half_ue4m3(load_u8(src + i)), dst + 16 * i);
  }
}

// The code of a scale as GGML rounds it: halves away from 0, below the least normal one to 7 / 512 at most, from 256 on
// to 448, the largest.
std::uint8_t ue4m3_of(float scale) {
  if (scale >= 256) return 0x7E;
  if (scale < 0x1p-6f) return static_cast<std::uint8_t>(std::min(7, static_cast<int>(scale * 512 + 0.5f)));
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(scale) + 0x80000;  // three bits of mantissa are kept
  return static_cast<std::uint8_t>(std::min<std::uint32_t>((bits >> 20) - ((127 - 7) << 3), 0x7E));
}

// The scale makes the largest magnitude 6. Values so far beyond 6 * 448 that every code is as far from them become 6
// here, where GGML has 0.
void encode_nvfp4(const float* src, std::byte* dst, std::int64_t n) noexcept {
  for (; n > 0; n -= 64, dst += 36) {
    for (int i = 0; i < 4; ++i, src += 16) {
      float largest = 0;
      for (int j = 0; j < 16; ++j) largest = std::max(largest, std::fabs(src[j]));  // a NaN is passed over
      const std::uint8_t scale = ue4m3_of(largest / 6.0f);
      dst[i] = static_cast<std::byte>(scale);
      put_nearest(src, 8, half_ue4m3(scale), dst + 4 + 8 * i);
    }
  }
}

EncodingInfo writable(EncodingInfo info, void (*encode)(const float*, std::byte*, std::int64_t) noexcept) {
  info.encode = encode;
  return info;
}

}  // namespace

std::span<const EncodingInfo> entries() {
  static const std::array infos = {writable(read_only_block("mxfp4", 32, 17, {}, decode_mxfp4), encode_mxfp4),
                                   writable(read_only_block("nvfp4", 64, 36, {}, decode_nvfp4), encode_nvfp4)};
  return infos;
}

}  // namespace nibble::encoding::fp4
