// q4_0: 32 values d * (q - 8), q of 4 bits. Bytes: f16 d, 16 of nibbles.
#include "encoding/block_codec.h"
#include "encoding/block_fit.h"

namespace nibble::encoding::q4_0 {

namespace {

constexpr int kBytes = 18;

void pack(const BlockFields& fields, std::byte* dst) noexcept {
  store_f16(dst, fields.d);
  pack_nibbles(fields.code, 16, -8, dst + 2);
}

void unpack(const std::byte* src, BlockFields& fields) noexcept {
  fields.d = load_f16(src);
  fields.scale[0] = 1;
  unpack_nibbles(src + 2, 16, -8, fields.code);
}

constexpr BlockGrid kGrid{.block = 32, .sub = 32, .code_min = -8, .code_max = 7, .pack = pack, .unpack = unpack};

void choose(const float* src, BlockFields& fields) noexcept { choose_signed_max(kGrid, src, fields); }

}  // namespace

std::span<const EncodingInfo> entries() { return block_encoding<kGrid, kBytes, choose>("q4_0", {0}); }

}  // namespace nibble::encoding::q4_0
