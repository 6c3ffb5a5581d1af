// q5_1: 32 values d * q + m, q of 5 bits. Bytes: f16 d, f16 m, u32 of the fifth bits, 16 of nibbles. As fields, dmin =
// -m.
#include "encoding/block_codec.h"
#include "encoding/block_fit.h"

namespace nibble::encoding::q5_1 {

namespace {

constexpr int kBytes = 24;

void pack(const BlockFields& fields, std::byte* dst) noexcept {
  std::uint32_t high = 0;
  for (int i = 0; i < 32; ++i) high |= static_cast<std::uint32_t>((fields.code[i] >> 4) & 1) << i;
  store_f16(dst, fields.d);
  store_f16(dst + 2, -fields.dmin);
  store_u32(dst + 4, high);
  pack_nibbles(fields.code, 16, 0, dst + 8);
}

void unpack(const std::byte* src, BlockFields& fields) noexcept {
  fields.d = load_f16(src);
  fields.dmin = -load_f16(src + 2);
  fields.scale[0] = 1;
  fields.min[0] = 1;
  unpack_nibbles(src + 8, 16, 0, fields.code);
  const std::uint32_t high = load_u32(src + 4);
  for (int i = 0; i < 32; ++i) fields.code[i] = static_cast<std::int8_t>(fields.code[i] + ((high >> i) & 1) * 16);
}

constexpr BlockGrid kGrid{
    .block = 32, .sub = 32, .code_min = 0, .code_max = 31, .has_min = true, .pack = pack, .unpack = unpack};

void choose(const float* src, BlockFields& fields) noexcept { choose_min_max(kGrid, src, fields); }

}  // namespace

std::span<const EncodingInfo> entries() { return block_encoding<kGrid, kBytes, choose>("q5_1", {0, 2}); }

}  // namespace nibble::encoding::q5_1
