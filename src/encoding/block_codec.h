// What the block types share: little-endian field access and the row codec that follows from a block's pack and unpack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "encoding/block_grid.h"
#include "encoding/encoding.h"
#include "tensor/half.h"

namespace nibble::encoding {

inline std::uint8_t load_u8(const std::byte* src) { return std::to_integer<std::uint8_t>(*src); }
inline std::uint16_t load_u16(const std::byte* src) {
  std::uint16_t value;
  std::memcpy(&value, src, 2);
  return value;
}
inline std::uint32_t load_u32(const std::byte* src) {
  std::uint32_t value;
  std::memcpy(&value, src, 4);
  return value;
}
inline float load_f16(const std::byte* src) { return f16_to_f32(load_u16(src)); }

inline void store_u16(std::byte* dst, std::uint16_t value) { std::memcpy(dst, &value, 2); }
inline void store_u32(std::byte* dst, std::uint32_t value) { std::memcpy(dst, &value, 4); }
inline void store_f16(std::byte* dst, float value) { store_u16(dst, f32_to_f16(value)); }

inline float round_to_f16(float value) { return f16_to_f32(f32_to_f16(value)); }

// Two codes of 0..15 a byte: code[i] in the low nibble of byte i, code[half + i] in the high one. `offset` is added to
// the stored value.
inline void unpack_nibbles(const std::byte* src, int half, int offset, std::int8_t* code) {
  for (int i = 0; i < half; ++i) {
    const int pair = load_u8(src + i);
    code[i] = static_cast<std::int8_t>((pair & 15) + offset);
    code[half + i] = static_cast<std::int8_t>((pair >> 4) + offset);
  }
}
inline void pack_nibbles(const std::int8_t* code, int half, int offset, std::byte* dst) {
  for (int i = 0; i < half; ++i) {
    dst[i] = static_cast<std::byte>(((code[i] - offset) & 15) | ((code[half + i] - offset) & 15) << 4);
  }
}

// The 2 low bits of 256 codes, each half of 128 in 32 bytes: code 32 j + l of the half in byte l from bit 2j.
inline void pack_crumbs(const std::int8_t* code, int offset, std::byte* dst) {
  for (int half = 0; half < 2; ++half, code += 128, dst += 32) {
    for (int l = 0; l < 32; ++l) {
      int four = 0;
      for (int j = 0; j < 4; ++j) four |= ((code[32 * j + l] - offset) & 3) << 2 * j;
      dst[l] = static_cast<std::byte>(four);
    }
  }
}
inline void unpack_crumbs(const std::byte* src, std::int8_t* code) {
  for (int half = 0; half < 2; ++half, code += 128, src += 32) {
    for (int j = 0; j < 4; ++j) {
      for (int l = 0; l < 32; ++l) code[32 * j + l] = static_cast<std::int8_t>(load_u8(src + l) >> 2 * j & 3);
    }
  }
}

// The 12 bytes of 8 scales and 8 mins of 6 bits (q4_k, q5_k): bytes 0..3 scale 0..3 and the top 2 bits of scale 4..7,
// bytes 4..7 the same of the mins, bytes 8..11 the low nibbles of scale 4..7 and, in the high half, of min 4..7.
inline void pack_scales_mins(const BlockFields& fields, std::byte* dst) {
  for (int i = 0; i < 4; ++i) {
    dst[i] = static_cast<std::byte>(fields.scale[i] | fields.scale[4 + i] >> 4 << 6);
    dst[4 + i] = static_cast<std::byte>(fields.min[i] | fields.min[4 + i] >> 4 << 6);
    dst[8 + i] = static_cast<std::byte>((fields.scale[4 + i] & 15) | (fields.min[4 + i] & 15) << 4);
  }
}
inline void unpack_scales_mins(const std::byte* src, BlockFields& fields) {
  for (int i = 0; i < 4; ++i) {
    const int scale = load_u8(src + i);
    const int min = load_u8(src + 4 + i);
    const int low = load_u8(src + 8 + i);
    fields.scale[i] = static_cast<std::int8_t>(scale & 63);
    fields.min[i] = static_cast<std::uint8_t>(min & 63);
    fields.scale[4 + i] = static_cast<std::int8_t>((low & 15) | scale >> 6 << 4);
    fields.min[4 + i] = static_cast<std::uint8_t>(low >> 4 | min >> 6 << 4);
  }
}

// The value formula of BlockFields in f32, each operation rounded once: (d * scale) * level - (dmin * min).
template <const BlockGrid& kGrid>
void decode_fields(const BlockFields& fields, float* dst) noexcept {
  for (int i = 0; i < kGrid.block / kGrid.sub; ++i) {
    const std::int8_t* code = fields.code + i * kGrid.sub;
    float* out = dst + i * kGrid.sub;
    const float scale = fields.d * static_cast<float>(fields.scale[i]);
    const float min = fields.dmin * static_cast<float>(fields.min[i]);
    for (int j = 0; j < kGrid.sub; ++j) {
      const int level = kGrid.table != nullptr ? kGrid.table[code[j]] : code[j];
      const float product = scale * static_cast<float>(level);
      out[j] = kGrid.has_min ? product - min : product;
    }
  }
}

template <const BlockGrid& kGrid, int kBytes>
void decode_blocks(const std::byte* src, float* dst, std::int64_t n) noexcept {
  BlockFields fields;
  for (std::int64_t i = 0; i < n; i += kGrid.block, src += kBytes) {
    kGrid.unpack(src, fields);
    decode_fields<kGrid>(fields, dst + i);
  }
}

// Chooses the fields of one block of kGrid.block values.
using ChooseFields = void (*)(const float* src, BlockFields& fields) noexcept;

template <const BlockGrid& kGrid, int kBytes, ChooseFields kChoose>
void encode_blocks(const float* src, std::byte* dst, std::int64_t n) noexcept {
  for (std::int64_t i = 0; i < n; i += kGrid.block, dst += kBytes) {
    BlockFields fields;
    kChoose(src + i, fields);
    kGrid.pack(fields, dst);
  }
}

// A block type that is only read: its geometry and decoder. For `f16_scales_at` see EncodingInfo.
inline EncodingInfo read_only_block(std::string name, int elements, int bytes, std::vector<int> f16_scales_at,
                                    void (*decode)(const std::byte*, float*, std::int64_t) noexcept) {
  EncodingInfo info;
  info.name = std::move(name);
  info.family = Family::kBlock;
  info.dtype = Dtype::kU8;
  info.block_elements = elements;
  info.block_bytes = bytes;
  info.bits_per_weight = 8.0 * bytes / elements;
  info.decode = decode;
  info.f16_scales_at = std::move(f16_scales_at);
  return info;
}

template <const BlockGrid& kGrid, int kBytes, ChooseFields kChoose>
std::span<const EncodingInfo> block_encoding(std::string name, std::vector<int> f16_scales_at) {
  static const EncodingInfo info = [&] {
    EncodingInfo made =
        read_only_block(std::move(name), kGrid.block, kBytes, std::move(f16_scales_at), decode_blocks<kGrid, kBytes>);
    made.encode = encode_blocks<kGrid, kBytes, kChoose>;
    made.grid = &kGrid;
    return made;
  }();
  return {&info, 1};
}

}  // namespace nibble::encoding
