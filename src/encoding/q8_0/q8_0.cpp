// q8_0: 32 values d * q, q of 8 bits. Bytes: f16 d, 32 of int8. A file may hold -128, the encoder never does.
#include <cmath>

#include "encoding/block_codec.h"
#include "encoding/block_fit.h"

namespace nibble::encoding::q8_0 {

namespace {

constexpr int kBytes = 34;

void pack(const BlockFields& fields, std::byte* dst) noexcept {
  store_f16(dst, fields.d);
  std::memcpy(dst + 2, fields.code, 32);
}

void unpack(const std::byte* src, BlockFields& fields) noexcept {
  fields.d = load_f16(src);
  fields.scale[0] = 1;
  std::memcpy(fields.code, src + 2, 32);
}

constexpr BlockGrid kGrid{.block = 32, .sub = 32, .code_min = -127, .code_max = 127, .pack = pack, .unpack = unpack};

// d = largest magnitude / 127; nearest code, ties away from zero.
void choose(const float* src, BlockFields& fields) noexcept {
  const float d = std::fabs(signed_max(src, 32)) / 127.0f;
  const float inverse = d != 0 ? 1.0f / d : 0.0f;
  fields.d = round_to_f16(d);
  fields.scale[0] = 1;
  for (int i = 0; i < 32; ++i) {
    const float value = src[i] * inverse;
    // Adding the largest float below 0.5 and truncating rounds as roundf().
    fields.code[i] = static_cast<std::int8_t>(truncate_int(value + std::copysign(0x1.fffffep-2f, value)));
  }
}

}  // namespace

std::span<const EncodingInfo> entries() { return block_encoding<kGrid, kBytes, choose>("q8_0", {0}); }

}  // namespace nibble::encoding::q8_0
