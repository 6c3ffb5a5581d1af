// q4_1: 32 values d * q + m, q of 4 bits. Bytes: f16 d, f16 m, 16 of nibbles. As fields, dmin = -m.
#include "encoding/block_codec.h"
#include "encoding/block_fit.h"

namespace nibble::encoding::q4_1 {

namespace {

constexpr int kBytes = 20;

void pack(const BlockFields& fields, std::byte* dst) noexcept {
  store_f16(dst, fields.d);
  store_f16(dst + 2, -fields.dmin);
  pack_nibbles(fields.code, 16, 0, dst + 4);
}

void unpack(const std::byte* src, BlockFields& fields) noexcept {
  fields.d = load_f16(src);
  fields.dmin = -load_f16(src + 2);
  fields.scale[0] = 1;
  fields.min[0] = 1;
  unpack_nibbles(src + 4, 16, 0, fields.code);
}

constexpr BlockGrid kGrid{
    .block = 32, .sub = 32, .code_min = 0, .code_max = 15, .has_min = true, .pack = pack, .unpack = unpack};

void choose(const float* src, BlockFields& fields) noexcept { choose_min_max(kGrid, src, fields); }

}  // namespace

std::span<const EncodingInfo> entries() { return block_encoding<kGrid, kBytes, choose>("q4_1", {0, 2}); }

}  // namespace nibble::encoding::q4_1
