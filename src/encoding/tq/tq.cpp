// tq1_0, tq2_0: 256 values -d, 0, d. Read only.
#include <array>

#include "encoding/block_codec.h"

namespace nibble::encoding::tq {

namespace {

// One run of tq1_0 bytes: digit i of every byte, then digit i + 1. A byte b holds its base-3 digits, first one first,
// as the fraction b / 256 (rounded up): digit i is the whole part of 3 * frac(b * 3^i / 256).
float* put_digits(const std::byte* src, int n_bytes, int n_digits, float d, float* dst) {
  int power = 1;
  for (int i = 0; i < n_digits; ++i, power *= 3) {
    for (int m = 0; m < n_bytes; ++m) {
      const int digit = (load_u8(src + m) * power & 255) * 3 >> 8;
      *dst++ = static_cast<float>(digit - 1) * d;
    }
  }
  return dst;
}

// Bytes: 48 of five digits (a run of 32 and one of 16), 4 of four digits, f16 d.
void decode_tq1(const std::byte* src, float* dst, std::int64_t n) noexcept {
  for (; n > 0; n -= 256, src += 54) {
    const float d = load_f16(src + 52);
    dst = put_digits(src, 32, 5, d, dst);
    dst = put_digits(src + 32, 16, 5, d, dst);
    dst = put_digits(src + 48, 4, 4, d, dst);
  }
}

// Bytes: 64 of four 2-bit codes (as q2_k), f16 d. Value (q - 1) * d; a stray 3 gives 2 d.
void decode_tq2(const std::byte* src, float* dst, std::int64_t n) noexcept {
  std::int8_t code[256];
  for (; n > 0; n -= 256, src += 66, dst += 256) {
    const float d = load_f16(src + 64);
    unpack_crumbs(src, code);
    for (int i = 0; i < 256; ++i) dst[i] = static_cast<float>(code[i] - 1) * d;
  }
}

}  // namespace

std::span<const EncodingInfo> entries() {
  static const std::array infos = {read_only_block("tq1_0", 256, 54, {52}, decode_tq1),
                                   read_only_block("tq2_0", 256, 66, {64}, decode_tq2)};
  return infos;
}

}  // namespace nibble::encoding::tq
