// iq2_xxs, iq2_xs, iq2_s: 256 values, points of 8 coordinates from a fixed grid with signs and a 4-bit scale s:
// d * (0.5 + s) / 4 * coordinate. Read only.
#include <array>

#include "encoding/block_codec.h"
#include "encoding/iq2/grids.h"
#include "encoding/iq_grid.h"

namespace nibble::encoding::iq2 {

namespace {

constexpr std::uint8_t kLevels[] = {8, 25, 43};
constexpr auto kXxs = expand_grid<8, 2>(kIq2XxsGrid, kLevels);
constexpr auto kXs = expand_grid<8, 2>(kIq2XsGrid, kLevels);
constexpr auto kS = expand_grid<8, 2>(kIq2SGrid, kLevels);

float scale_of(float d, unsigned s) { return d * (0.5f + static_cast<float>(s)) * 0.25f; }

// Bytes: f16 d, per 32 values: 4 grid indices of 8 bits, u32 of four 7-bit signs and the scale on top.
void decode_xxs(const std::byte* src, float* dst, std::int64_t n) noexcept {
  for (; n > 0; n -= 256, src += 66) {
    const float d = load_f16(src);
    for (int i = 0; i < 8; ++i) {
      const std::byte* indices = src + 2 + 8 * i;
      const std::uint32_t tail = load_u32(indices + 4);
      const float scale = scale_of(d, tail >> 28);
      for (int l = 0; l < 4; ++l, dst += 8) {
        put_signed(kXxs[load_u8(indices + l)], scale, even_signs(tail >> 7 * l & 127), dst);
      }
    }
  }
}

// Bytes: f16 d, 32 u16 of 9 bits grid index and 7 bits signs, 8 of two scales (per 16 values).
void decode_xs(const std::byte* src, float* dst, std::int64_t n) noexcept {
  for (; n > 0; n -= 256, src += 74) {
    const float d = load_f16(src);
    for (int i = 0; i < 32; ++i, dst += 8) {
      const unsigned word = load_u16(src + 2 + 2 * i);
      const float scale = scale_of(d, load_u8(src + 66 + i / 4) >> (i / 2 % 2 * 4) & 15u);
      put_signed(kXs[word & 511], scale, even_signs(word >> 9), dst);
    }
  }
}

// Bytes: f16 d, 32 low bytes of the grid index, 32 of signs, 8 of the index's high 2 bits (4 a byte), 8 of two scales.
void decode_s(const std::byte* src, float* dst, std::int64_t n) noexcept {
  for (; n > 0; n -= 256, src += 82) {
    const float d = load_f16(src);
    for (int i = 0; i < 32; ++i, dst += 8) {
      const unsigned high = load_u8(src + 66 + i / 4) >> (i % 4 * 2) & 3u;
      const float scale = scale_of(d, load_u8(src + 74 + i / 4) >> (i / 2 % 2 * 4) & 15u);
      put_signed(kS[load_u8(src + 2 + i) | high << 8], scale, load_u8(src + 34 + i), dst);
    }
  }
}

}  // namespace

std::span<const EncodingInfo> entries() {
  static const std::array infos = {read_only_block("iq2_xxs", 256, 66, {0}, decode_xxs),
                                   read_only_block("iq2_xs", 256, 74, {0}, decode_xs),
                                   read_only_block("iq2_s", 256, 82, {0}, decode_s)};
  return infos;
}

}  // namespace nibble::encoding::iq2
