// q1_0: 128 values, d where the bit is set, else -d. Bytes: f16 d, 16 of bits, the lowest first. Read only.
#include <array>

#include "encoding/block_codec.h"

namespace nibble::encoding::q1_0 {

namespace {

void decode(const std::byte* src, float* dst, std::int64_t n) noexcept {
  for (; n > 0; n -= 128, src += 18, dst += 128) {
    const float d = load_f16(src);
    for (int i = 0; i < 128; ++i) dst[i] = (load_u8(src + 2 + i / 8) >> (i % 8) & 1) != 0 ? d : -d;
  }
}

}  // namespace

std::span<const EncodingInfo> entries() {
  static const std::array infos = {read_only_block("q1_0", 128, 18, {0}, decode)};
  return infos;
}

}  // namespace nibble::encoding::q1_0
