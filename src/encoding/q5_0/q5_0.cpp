// q5_0: 32 values d * (q - 16), q of 5 bits. Bytes: f16 d, u32 of the fifth bits (bit e of element e), 16 of nibbles.
#include "encoding/block_codec.h"
#include "encoding/block_fit.h"

namespace nibble::encoding::q5_0 {

namespace {

constexpr int kBytes = 22;

void pack(const BlockFields& fields, std::byte* dst) noexcept {
  std::uint32_t high = 0;
  for (int i = 0; i < 32; ++i) high |= static_cast<std::uint32_t>(((fields.code[i] + 16) >> 4) & 1) << i;
  store_f16(dst, fields.d);
  store_u32(dst + 2, high);
  pack_nibbles(fields.code, 16, -16, dst + 6);
}

void unpack(const std::byte* src, BlockFields& fields) noexcept {
  fields.d = load_f16(src);
  fields.scale[0] = 1;
  unpack_nibbles(src + 6, 16, -16, fields.code);
  const std::uint32_t high = load_u32(src + 2);
  for (int i = 0; i < 32; ++i) fields.code[i] = static_cast<std::int8_t>(fields.code[i] + ((high >> i) & 1) * 16);
}

constexpr BlockGrid kGrid{.block = 32, .sub = 32, .code_min = -16, .code_max = 15, .pack = pack, .unpack = unpack};

void choose(const float* src, BlockFields& fields) noexcept { choose_signed_max(kGrid, src, fields); }

}  // namespace

std::span<const EncodingInfo> entries() { return block_encoding<kGrid, kBytes, choose>("q5_0", {0}); }

}  // namespace nibble::encoding::q5_0
