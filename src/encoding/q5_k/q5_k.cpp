// q5_k: 256 values d * s * q - dmin * m, q of 5 bits, s and m of 6 bits per 32 values. Bytes: f16 d, f16 dmin, 12 of
// scales and mins (block_codec.h), 32 of fifth bits (bit e / 32 of byte e % 32), 128 of nibbles as q4_k.
#include "encoding/block_codec.h"
#include "encoding/block_fit.h"

namespace nibble::encoding::q5_k {

namespace {

constexpr int kBytes = 176;

void pack(const BlockFields& fields, std::byte* dst) noexcept {
  store_f16(dst, fields.d);
  store_f16(dst + 2, fields.dmin);
  pack_scales_mins(fields, dst + 4);
  std::memset(dst + 16, 0, 32);
  for (int e = 0; e < 256; ++e) dst[16 + e % 32] |= static_cast<std::byte>((fields.code[e] >> 4 & 1) << (e / 32));
  for (int run = 0; run < 4; ++run) pack_nibbles(fields.code + 64 * run, 32, 0, dst + 48 + 32 * run);
}

void unpack(const std::byte* src, BlockFields& fields) noexcept {
  fields.d = load_f16(src);
  fields.dmin = load_f16(src + 2);
  unpack_scales_mins(src + 4, fields);
  for (int run = 0; run < 4; ++run) unpack_nibbles(src + 48 + 32 * run, 32, 0, fields.code + 64 * run);
  for (int part = 0; part < 8; ++part) {
    std::int8_t* code = fields.code + 32 * part;
    for (int i = 0; i < 32; ++i) code[i] = static_cast<std::int8_t>(code[i] | (load_u8(src + 16 + i) >> part & 1) << 4);
  }
}

constexpr BlockGrid kGrid{.block = 256,
                          .sub = 32,
                          .code_min = 0,
                          .code_max = 31,
                          .has_min = true,
                          .scale_min = 0,
                          .scale_max = 63,
                          .min_max = 63,
                          .pack = pack,
                          .unpack = unpack};

void choose(const float* src, BlockFields& fields) noexcept {
  choose_scale_min(kGrid, {.first = -0.5f, .step = 0.1f, .steps = 15, .absolute = false}, src, fields);
}

}  // namespace

std::span<const EncodingInfo> entries() { return block_encoding<kGrid, kBytes, choose>("q5_k", {0, 2}); }

}  // namespace nibble::encoding::q5_k
