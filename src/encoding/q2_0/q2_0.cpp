// q2_0: 64 values (q - 1) * d, q of 2 bits. Bytes: f16 d, 16 of four codes, the lowest bits first. Read only.
#include <array>

#include "encoding/block_codec.h"

namespace nibble::encoding::q2_0 {

namespace {

void decode(const std::byte* src, float* dst, std::int64_t n) noexcept {
  for (; n > 0; n -= 64, src += 18, dst += 64) {
    const float d = load_f16(src);
    for (int i = 0; i < 64; ++i) dst[i] = static_cast<float>((load_u8(src + 2 + i / 4) >> (i % 4 * 2) & 3) - 1) * d;
  }
}

}  // namespace

std::span<const EncodingInfo> entries() {
  static const std::array infos = {read_only_block("q2_0", 64, 18, {0}, decode)};
  return infos;
}

}  // namespace nibble::encoding::q2_0
