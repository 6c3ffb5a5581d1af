// What the integer kernels share: panels of sixteen rows of codes, and activations in int8. Plain types and constants
// only, so that files for one instruction set may include it.
//
// Sixteen rows form a panel, so that one 64-byte vector holds four consecutive columns of each: an activation broadcast
// feeds sixteen rows and no sum across a vector is needed. A block is 32 columns of a panel: the low bits of 16 x 32
// codes, then their high bits. With group g the columns 4g..4g+3, and byte 4r+i of a vector for row r, column i of its
// group:
//   low 8: vector g        low 4: vector g % 4, nibble g / 4        low 2: vector g / 4, bits 2 (g % 4)
//   high 1: bit g          high 2: vector g / 4, bits 2 (g % 4)
#pragma once

#include <stdint.h>

namespace nibble::kernel {

constexpr int kPanelRows = 16;
constexpr int kBlock = 32;  // columns that share an activation scale
constexpr int kGroups = 8;  // groups of four columns in a block
// Below this largest magnitude the activations of a block count as zero (127 / m would overflow).
constexpr float kSmallest = 1e-30f;

// How many bits of a code lie in each plane of a block.
struct CodePlanes {
  int low_bits;   // 2, 4 or 8
  int high_bits;  // 0, 1 or 2
};

// Where the codes of group g of a block lie, as said above: in which vectors, counted from the first of the block, and
// from which bit of their bytes on. A plane of n bits fills n vectors.
struct CodePlace {
  int low_vector;
  int low_bit;
  int high_vector;
  int high_bit;
};
constexpr CodePlace code_place(CodePlanes planes, int g) {
  CodePlace place{g, 0, planes.low_bits, g};
  if (planes.low_bits == 4) place.low_vector = g % 4, place.low_bit = g / 4 * 4;
  if (planes.low_bits == 2) place.low_vector = g / 4, place.low_bit = g % 4 * 2;
  if (planes.high_bits == 2) place.high_vector = planes.low_bits + g / 4, place.high_bit = g % 4 * 2;
  return place;
}
// Rows are summed in parts that end with a group of columns, with a stretch and with the row: where the one that begins
// at `begin` ends, of a row of `all`.
constexpr int64_t part_end(int64_t begin, int64_t group, int64_t stretch, int64_t all) {
  const int64_t group_end = (begin / group + 1) * group;
  const int64_t stretch_end = (begin / stretch + 1) * stretch;
  const int64_t end = group_end < stretch_end ? group_end : stretch_end;
  return end < all ? end : all;
}
// The same `bits` bits from `bit` on, in each byte.
constexpr uint8_t code_mask(int bits, int bit = 0) { return static_cast<uint8_t>(((1 << bits) - 1) << bit); }

// The kBlock codes of one row of a block; store_codes adds them to zeroed bytes.
void store_codes(CodePlanes planes, const uint8_t* code, int row, uint8_t* block) noexcept;
void load_codes(CodePlanes planes, const uint8_t* block, int row, uint8_t* code) noexcept;

// One row of activations: int8 codes, then f32 scales of 32 columns, then int16 sums of 16 codes; each array padded
// with zeros to 64 bytes.
struct Activations {
  const uint8_t* rows;
  int64_t stride;     // bytes
  int64_t scales_at;  // offsets in a row
  int64_t sums_at;
};

// Rounds `n` rows of 32 * blocks floats; `out` as Activations describes. `given`: scales of the blocks of a row, all
// rows alike, and codes of at most `top` in magnitude; null: each block's own, of 127 levels.
struct QuantizeJob {
  const float* x;
  int64_t ldx;
  int64_t n;
  int64_t blocks;
  uint8_t* out;
  int64_t stride;
  int64_t scales_at;
  int64_t sums_at;
  const float* given;
  float top;
};
// Of a scale, below which all inputs count as zero.
constexpr float kSmallestScale = 1e-32f;
void quantize_q8_avx2(const QuantizeJob& job) noexcept;
void quantize_q8_avx512(const QuantizeJob& job) noexcept;

}  // namespace nibble::kernel
