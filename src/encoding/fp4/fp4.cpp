// mxfp4, nvfp4: 4-bit floats E2M1 with a power-of-two scale per 32 values (OCP MX) or an E4M3 scale per 16. Read only.
#include <array>

#include "encoding/block_codec.h"

namespace nibble::encoding::fp4 {

namespace {

// E2M1 values doubled, so that they are whole; the scales below are halved.
constexpr std::int8_t kDoubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Values in q4_0's nibble order.
void put_nibbles(const std::byte* src, int half, float scale, float* dst) {
  for (int i = 0; i < half; ++i) {
    dst[i] = static_cast<float>(kDoubled[load_u8(src + i) & 15]) * scale;
    dst[half + i] = static_cast<float>(kDoubled[load_u8(src + i) >> 4]) * scale;
  }
}

// Half of 2^(code - 127); as in GGML, the code of NaN (255) gives 2^127.
float half_e8m0(std::uint8_t code) {
  const std::uint32_t bits = code < 2 ? 0x00200000u << code : static_cast<std::uint32_t>(code - 1) << 23;
  return std::bit_cast<float>(bits);
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

// Bytes: 4 e4m3 scales, 4 runs of 8 of nibbles. A tensor's second scale is a tensor of its own in a GGUF file.
void decode_nvfp4(const std::byte* src, float* dst, std::int64_t n) noexcept {
  for (; n > 0; n -= 64, src += 36, dst += 64) {
    for (int i = 0; i < 4; ++i) put_nibbles(src + 4 + 8 * i, 8, half_ue4m3(load_u8(src + i)), dst + 16 * i);
  }
}

}  // namespace

std::span<const EncodingInfo> entries() {
  static const std::array infos = {read_only_block("mxfp4", 32, 17, {}, decode_mxfp4),
                                   read_only_block("nvfp4", 64, 36, {}, decode_nvfp4)};
  return infos;
}

}  // namespace nibble::encoding::fp4
