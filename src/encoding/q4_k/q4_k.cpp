// q4_k: 256 values d * s * q - dmin * m, q of 4 bits, s and m of 6 bits per 32 values. Bytes: f16 d, f16 dmin, 12 of
// scales and mins (block_codec.h), 4 runs of 32 bytes whose low nibbles are one sub-block and whose high nibbles the
// next.
#include "encoding/block_codec.h"
#include "encoding/block_fit.h"

namespace nibble::encoding::q4_k {

namespace {

constexpr int kBytes = 144;

void pack(const BlockFields& fields, std::byte* dst) noexcept {
  store_f16(dst, fields.d);
  store_f16(dst + 2, fields.dmin);
  pack_scales_mins(fields, dst + 4);
  for (int run = 0; run < 4; ++run) pack_nibbles(fields.code + 64 * run, 32, 0, dst + 16 + 32 * run);
}

void unpack(const std::byte* src, BlockFields& fields) noexcept {
  fields.d = load_f16(src);
  fields.dmin = load_f16(src + 2);
  unpack_scales_mins(src + 4, fields);
  for (int run = 0; run < 4; ++run) unpack_nibbles(src + 16 + 32 * run, 32, 0, fields.code + 64 * run);
}

constexpr BlockGrid kGrid{.block = 256,
                          .sub = 32,
                          .code_min = 0,
                          .code_max = 15,
                          .has_min = true,
                          .scale_min = 0,
                          .scale_max = 63,
                          .min_max = 63,
                          .pack = pack,
                          .unpack = unpack};

void choose(const float* src, BlockFields& fields) noexcept {
  choose_scale_min(kGrid, {.first = -1.0f, .step = 0.1f, .steps = 20, .absolute = false}, src, fields);
}

}  // namespace

std::span<const EncodingInfo> entries() { return block_encoding<kGrid, kBytes, choose>("q4_k", {0, 2}); }

}  // namespace nibble::encoding::q4_k
