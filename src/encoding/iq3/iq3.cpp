// iq3_xxs, iq3_s: 256 values, points of 4 coordinates from a fixed grid with signs and a 4-bit scale s per 32 values.
// Read only.
#include <array>

#include "encoding/block_codec.h"
#include "encoding/iq3/grids.h"
#include "encoding/iq_grid.h"

namespace nibble::encoding::iq3 {

namespace {

constexpr std::uint8_t kXxsLevels[] = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr std::uint8_t kSLevels[] = {1, 3, 5, 7, 9, 11, 13, 15};
constexpr auto kXxs = expand_grid<4, 3>(kIq3XxsGrid, kXxsLevels);
constexpr auto kS = expand_grid<4, 3>(kIq3SGrid, kSLevels);

// d * (0.5 + s) / 2 * coordinate. Bytes: f16 d, 64 grid indices, 8 u32 of four 7-bit signs and the scale on top.
void decode_xxs(const std::byte* src, float* dst, std::int64_t n) noexcept {
  for (; n > 0; n -= 256, src += 98) {
    const float d = load_f16(src);
    for (int i = 0; i < 8; ++i) {
      const std::uint32_t tail = load_u32(src + 66 + 4 * i);
      const float scale = d * (0.5f + static_cast<float>(tail >> 28)) * 0.5f;
      for (int l = 0; l < 4; ++l, dst += 8) {
        const std::byte* pair = src + 2 + 8 * i + 2 * l;
        const unsigned signs = even_signs(tail >> 7 * l & 127);
        put_signed(kXxs[load_u8(pair)], scale, signs, dst);
        put_signed(kXxs[load_u8(pair + 1)], scale, signs >> 4, dst + 4);
      }
    }
  }
}

// d * (1 + 2 s) * coordinate. Bytes: f16 d, 64 low bytes of the grid index, 8 of the index's ninth bits (bit i of byte
// b: index 8 b + i), 32 of signs, 4 of two scales.
void decode_s(const std::byte* src, float* dst, std::int64_t n) noexcept {
  for (; n > 0; n -= 256, src += 110) {
    const float d = load_f16(src);
    for (int i = 0; i < 64; ++i, dst += 4) {
      const unsigned high = load_u8(src + 66 + i / 8) >> (i % 8) & 1u;
      const unsigned signs = load_u8(src + 74 + i / 2) >> (i % 2 * 4);
      const int s = load_u8(src + 106 + i / 16) >> (i / 8 % 2 * 4) & 15;
      put_signed(kS[load_u8(src + 2 + i) | high << 8], d * static_cast<float>(1 + 2 * s), signs, dst);
    }
  }
}

}  // namespace

std::span<const EncodingInfo> entries() {
  static const std::array infos = {read_only_block("iq3_xxs", 256, 98, {0}, decode_xxs),
                                   read_only_block("iq3_s", 256, 110, {0}, decode_s)};
  return infos;
}

}  // namespace nibble::encoding::iq3
