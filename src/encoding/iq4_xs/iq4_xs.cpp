// iq4_xs: 256 values d * (s - 32) * level[q], q of 4 bits over the levels of iq4_nl, s of 6 bits per 32 values. Bytes:
// f16 d, u16 of the scales' high 2 bits, 4 of their low nibbles, 8 sub-blocks of 16 bytes (low nibbles the first half).
#include <algorithm>

#include "encoding/block_codec.h"
#include "encoding/block_fit.h"

namespace nibble::encoding::iq4_xs {

namespace {

constexpr int kBytes = 136;

void pack(const BlockFields& fields, std::byte* dst) noexcept {
  std::uint32_t high = 0;
  std::uint32_t low = 0;
  for (int i = 0; i < 8; ++i) {
    const auto stored = static_cast<std::uint32_t>(fields.scale[i] + 32);
    low |= (stored & 15) << 4 * i;
    high |= stored >> 4 << 2 * i;
  }
  store_f16(dst, fields.d);
  store_u16(dst + 2, static_cast<std::uint16_t>(high));
  store_u32(dst + 4, low);
  for (int i = 0; i < 8; ++i) pack_nibbles(fields.code + 32 * i, 16, 0, dst + 8 + 16 * i);
}

void unpack(const std::byte* src, BlockFields& fields) noexcept {
  const std::uint32_t high = load_u16(src + 2);
  const std::uint32_t low = load_u32(src + 4);
  fields.d = load_f16(src);
  for (int i = 0; i < 8; ++i) {
    const auto stored = static_cast<int>((low >> 4 * i & 15) | (high >> 2 * i & 3) << 4);
    fields.scale[i] = static_cast<std::int8_t>(stored - 32);
    unpack_nibbles(src + 8 + 16 * i, 16, 0, fields.code + 32 * i);
  }
}

constexpr BlockGrid kGrid{.block = 256,
                          .sub = 32,
                          .code_min = 0,
                          .code_max = 15,
                          .scale_min = -32,
                          .scale_max = 31,
                          .table = kIq4Levels,
                          .pack = pack,
                          .unpack = unpack};

void choose(const float* src, BlockFields& fields) noexcept {
  float scale[8];
  for (int i = 0; i < 8; ++i) scale[i] = level_scale(src + 32 * i, 32, 7, fields.code + 32 * i);
  const float d = -signed_max(scale, 8) / 32.0f;
  const float inverse = d != 0 ? 1.0f / d : 0.0f;
  fields.d = round_to_f16(d);
  for (int i = 0; i < 8; ++i) {
    fields.scale[i] = static_cast<std::int8_t>(std::clamp(nearest_int(inverse * scale[i]), -32, 31));
    const float step = d * static_cast<float>(fields.scale[i]);  // the unrounded d, as the reference
    const float inverse_step = step != 0 ? 1.0f / step : 0.0f;
    for (int e = 32 * i; e < 32 * (i + 1); ++e) {
      fields.code[e] = static_cast<std::int8_t>(nearest_iq4_level(inverse_step * src[e]));
    }
  }
}

}  // namespace

std::span<const EncodingInfo> entries() { return block_encoding<kGrid, kBytes, choose>("iq4_xs", {0}); }

}  // namespace nibble::encoding::iq4_xs
