// iq4_nl: 32 values d * level[q], q of 4 bits over 16 unequal levels. Bytes as q4_0. In a block of zeros the reference
// leaves the codes undefined; here they name the level nearest zero.
#include "encoding/block_codec.h"
#include "encoding/block_fit.h"

namespace nibble::encoding::iq4_nl {

namespace {

constexpr int kBytes = 18;

void pack(const BlockFields& fields, std::byte* dst) noexcept {
  store_f16(dst, fields.d);
  pack_nibbles(fields.code, 16, 0, dst + 2);
}

void unpack(const std::byte* src, BlockFields& fields) noexcept {
  fields.d = load_f16(src);
  fields.scale[0] = 1;
  unpack_nibbles(src + 2, 16, 0, fields.code);
}

constexpr BlockGrid kGrid{
    .block = 32, .sub = 32, .code_min = 0, .code_max = 15, .table = kIq4Levels, .pack = pack, .unpack = unpack};

void choose(const float* src, BlockFields& fields) noexcept {
  fields.scale[0] = 1;
  fields.d = round_to_f16(level_scale(src, 32, 0, fields.code));
}

}  // namespace

std::span<const EncodingInfo> entries() { return block_encoding<kGrid, kBytes, choose>("iq4_nl", {0}); }

}  // namespace nibble::encoding::iq4_nl
