// iq1_s, iq1_m: 256 values, points of 8 coordinates -1, 0, 1 from a fixed grid of 2048, all shifted by +-1/8, with a
// 3-bit scale s: d * (2 s + 1) * (coordinate +- 1/8). Read only.
#include <array>

#include "encoding/block_codec.h"
#include "encoding/iq1/grids.h"
#include "encoding/iq_grid.h"

namespace nibble::encoding::iq1 {

namespace {

constexpr std::int8_t kLevels[] = {-1, 0, 1};
constexpr auto kGrid = expand_grid<8, 2>(kIq1Grid, kLevels);

void put_shifted(unsigned index, float d, unsigned s, bool down, float* dst) {
  const float scale = d * static_cast<float>(2 * s + 1);
  const float shift = down ? -0.125f : 0.125f;
  for (std::size_t j = 0; j < 8; ++j) dst[j] = scale * (static_cast<float>(kGrid[index][j]) + shift);
}

// Bytes: f16 d, 32 low bytes of the grid index, 8 u16 (one per 32 values): four times 3 high bits of the index, scale
// in bits 12..14, shift downwards in bit 15.
void decode_s(const std::byte* src, float* dst, std::int64_t n) noexcept {
  for (; n > 0; n -= 256, src += 50) {
    const float d = load_f16(src);
    for (int i = 0; i < 32; ++i, dst += 8) {
      const unsigned word = load_u16(src + 34 + i / 4 * 2);
      const unsigned high = word >> (i % 4 * 3) & 7;
      put_shifted(load_u8(src + 2 + i) | high << 8, d, word >> 12 & 7, word >> 15 != 0, dst);
    }
  }
}

// Bytes: 32 low bytes of the grid index, 16 of two times (3 high bits of the index, shift bit), 4 u16 of four 3-bit
// scales (per 16 values) each with a nibble of the f16 d on top, the lowest first.
void decode_m(const std::byte* src, float* dst, std::int64_t n) noexcept {
  for (; n > 0; n -= 256, src += 56) {
    unsigned bits = 0;
    for (int i = 0; i < 4; ++i) bits |= static_cast<unsigned>(load_u16(src + 48 + 2 * i) >> 12) << 4 * i;
    const float d = f16_to_f32(static_cast<std::uint16_t>(bits));
    for (int i = 0; i < 32; ++i, dst += 8) {
      const unsigned high = load_u8(src + 32 + i / 2) >> (i % 2 * 4) & 15u;
      const unsigned s = load_u16(src + 48 + i / 8 * 2) >> (i / 2 % 4 * 3) & 7u;
      put_shifted(load_u8(src + i) | (high & 7) << 8, d, s, high >> 3 != 0, dst);
    }
  }
}

}  // namespace

std::span<const EncodingInfo> entries() {
  static const std::array infos = {read_only_block("iq1_s", 256, 50, {0}, decode_s),
                                   read_only_block("iq1_m", 256, 56, {}, decode_m)};
  return infos;
}

}  // namespace nibble::encoding::iq1
