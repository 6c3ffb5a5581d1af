// q2_k: 256 values d * s * q - dmin * m, q of 2 bits, s and m of 4 bits per 16 values. Bytes: 16 of s | m << 4, 64 of
// codes, f16 d, f16 dmin. Code e of half h = e / 128 lies in byte 32 h + e % 32, bits 2j.. with j = e % 128 / 32.
#include "encoding/block_codec.h"
#include "encoding/block_fit.h"

namespace nibble::encoding::q2_k {

namespace {

constexpr int kBytes = 84;

void pack(const BlockFields& fields, std::byte* dst) noexcept {
  for (int i = 0; i < 16; ++i) dst[i] = static_cast<std::byte>(fields.scale[i] | fields.min[i] << 4);
  pack_crumbs(fields.code, 0, dst + 16);
  store_f16(dst + 80, fields.d);
  store_f16(dst + 82, fields.dmin);
}

void unpack(const std::byte* src, BlockFields& fields) noexcept {
  for (int i = 0; i < 16; ++i) {
    fields.scale[i] = static_cast<std::int8_t>(load_u8(src + i) & 15);
    fields.min[i] = static_cast<std::uint8_t>(load_u8(src + i) >> 4);
  }
  unpack_crumbs(src + 16, fields.code);
  fields.d = load_f16(src + 80);
  fields.dmin = load_f16(src + 82);
}

constexpr BlockGrid kGrid{.block = 256,
                          .sub = 16,
                          .code_min = 0,
                          .code_max = 3,
                          .has_min = true,
                          .scale_min = 0,
                          .scale_max = 15,
                          .min_max = 15,
                          .pack = pack,
                          .unpack = unpack};

void choose(const float* src, BlockFields& fields) noexcept {
  choose_scale_min(kGrid, {.first = -0.5f, .step = 0.1f, .steps = 15, .absolute = true}, src, fields);
}

}  // namespace

std::span<const EncodingInfo> entries() { return block_encoding<kGrid, kBytes, choose>("q2_k", {80, 82}); }

}  // namespace nibble::encoding::q2_k
