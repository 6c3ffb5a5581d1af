// q6_k: 256 values d * s * (q - 32), q of 6 bits, s int8 per 16 values. Bytes: 128 of low nibbles, 64 of high bits, 16
// of scales, f16 d. Half h = e / 128, k = e % 128 / 32, l = e % 32: low nibble in byte 64 h + 32 (k & 1) + l, its high
// half for k >= 2; the two high bits in byte 32 h + l from bit 2k.
#include <algorithm>
#include <cmath>

#include "encoding/block_codec.h"
#include "encoding/block_fit.h"

namespace nibble::encoding::q6_k {

namespace {

constexpr int kBytes = 210;

void pack(const BlockFields& fields, std::byte* dst) noexcept {
  for (int half = 0; half < 2; ++half) {
    pack_nibbles(fields.code + 128 * half, 64, -32, dst + 64 * half);
    for (int l = 0; l < 32; ++l) {
      int high = 0;
      for (int k = 0; k < 4; ++k) high |= (fields.code[128 * half + 32 * k + l] + 32) >> 4 << 2 * k;
      dst[128 + 32 * half + l] = static_cast<std::byte>(high);
    }
  }
  std::memcpy(dst + 192, fields.scale, 16);
  store_f16(dst + 208, fields.d);
}

void unpack(const std::byte* src, BlockFields& fields) noexcept {
  for (int half = 0; half < 2; ++half) {
    unpack_nibbles(src + 64 * half, 64, -32, fields.code + 128 * half);
    const std::byte* high = src + 128 + 32 * half;
    for (int k = 0; k < 4; ++k) {
      std::int8_t* code = fields.code + 128 * half + 32 * k;
      for (int l = 0; l < 32; ++l) code[l] = static_cast<std::int8_t>(code[l] + (load_u8(high + l) >> 2 * k & 3) * 16);
    }
  }
  std::memcpy(fields.scale, src + 192, 16);
  fields.d = load_f16(src + 208);
}

constexpr BlockGrid kGrid{.block = 256,
                          .sub = 16,
                          .code_min = -32,
                          .code_max = 31,
                          .scale_min = -128,
                          .scale_max = 127,
                          .pack = pack,
                          .unpack = unpack};

void choose(const float* src, BlockFields& fields) noexcept {
  float scale[16];
  for (int i = 0; i < 16; ++i) scale[i] = scan_scale(src + 16 * i, 16, 32, fields.code + 16 * i);
  const float max = signed_max(scale, 16);
  if (std::fabs(max) < kZeroBlock) {  // all bytes zero, as the reference writes it
    std::fill_n(fields.code, 256, std::int8_t{-32});
    return;
  }
  const float inverse = -128.0f / max;
  fields.d = round_to_f16(1.0f / inverse);
  for (int i = 0; i < 16; ++i) {
    fields.scale[i] = static_cast<std::int8_t>(std::min(nearest_int(inverse * scale[i]), 127));
  }
  reround_symmetric(kGrid, src, fields);
}

}  // namespace

std::span<const EncodingInfo> entries() { return block_encoding<kGrid, kBytes, choose>("q6_k", {208}); }

}  // namespace nibble::encoding::q6_k
