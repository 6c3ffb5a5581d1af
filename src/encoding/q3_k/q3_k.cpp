// q3_k: 256 values d * (s - 32) * (q - 4), q of 3 bits, s of 6 bits per 16 values. Bytes: 32 of third bits, 64 of low
// bits (as q2_k), 12 of scales, f16 d. Third bit of e: bit e / 32 of byte e % 32. Scale j: low nibbles in bytes j % 8
// (high half for j >= 8), top 2 bits in byte 8 + j % 4 from bit 2 (j / 4).
#include <algorithm>

#include "encoding/block_codec.h"
#include "encoding/block_fit.h"

namespace nibble::encoding::q3_k {

namespace {

constexpr int kBytes = 110;

void pack(const BlockFields& fields, std::byte* dst) noexcept {
  std::memset(dst, 0, kBytes);
  for (int e = 0; e < 256; ++e) dst[e % 32] |= static_cast<std::byte>(((fields.code[e] + 4) >> 2 & 1) << (e / 32));
  pack_crumbs(fields.code, -4, dst + 32);
  std::byte* scales = dst + 96;
  for (int j = 0; j < 16; ++j) {
    const int stored = fields.scale[j] + 32;
    scales[j % 8] |= static_cast<std::byte>((stored & 15) << (j / 8 * 4));
    scales[8 + j % 4] |= static_cast<std::byte>(stored >> 4 << (j / 4 * 2));
  }
  store_f16(dst + 108, fields.d);
}

void unpack(const std::byte* src, BlockFields& fields) noexcept {
  unpack_crumbs(src + 32, fields.code);
  for (int part = 0; part < 8; ++part) {
    std::int8_t* code = fields.code + 32 * part;
    for (int i = 0; i < 32; ++i) code[i] = static_cast<std::int8_t>(code[i] + (load_u8(src + i) >> part & 1) * 4 - 4);
  }
  const std::byte* scales = src + 96;
  for (int j = 0; j < 16; ++j) {
    const int low = load_u8(scales + j % 8) >> (j / 8 * 4) & 15;
    const int high = load_u8(scales + 8 + j % 4) >> (j / 4 * 2) & 3;
    fields.scale[j] = static_cast<std::int8_t>((low | high << 4) - 32);
  }
  fields.d = load_f16(src + 108);
}

constexpr BlockGrid kGrid{.block = 256,
                          .sub = 16,
                          .code_min = -4,
                          .code_max = 3,
                          .scale_min = -32,
                          .scale_max = 31,
                          .pack = pack,
                          .unpack = unpack};

void choose(const float* src, BlockFields& fields) noexcept {
  float scale[16];
  for (int i = 0; i < 16; ++i) scale[i] = sweep_scale(src + 16 * i, 16, 4, fields.code + 16 * i);
  const float max = signed_max(scale, 16);
  const float inverse = max != 0 ? -32.0f / max : 0.0f;
  fields.d = max != 0 ? round_to_f16(1.0f / inverse) : 0.0f;
  for (int i = 0; i < 16; ++i) {
    const int stored = max != 0 ? nearest_int(inverse * scale[i]) : -32;
    fields.scale[i] = static_cast<std::int8_t>(std::clamp(stored, -32, 31));
  }
  reround_symmetric(kGrid, src, fields);
}

}  // namespace

std::span<const EncodingInfo> entries() { return block_encoding<kGrid, kBytes, choose>("q3_k", {108}); }

}  // namespace nibble::encoding::q3_k
