// A block encoding as data: what a scale search, GPTQ or a training step needs to know to work on any of them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nibble::encoding {

// The numbers inside one block, unpacked. Sub-block i holds elements [i * sub, (i+1) * sub).
// Value of element e in sub-block i:  d * scale[i] * level(code[e]) - dmin * min[i]
// where level(c) = c, or table[c] for a non-linear type. Types without sub-blocks have scale[0] = 1 and min[0] = 1 (0
// if !has_min).
struct BlockFields {
  float d = 0;     // exactly representable in f16
  float dmin = 0;  // exactly representable in f16; of either sign (q4_1, q5_1 store m = -dmin)
  std::int8_t scale[16] = {};
  std::uint8_t min[16] = {};
  std::int8_t code[256] = {};
};

struct BlockGrid {
  int block = 0;     // elements of a block: 32 or 256
  int sub = 0;       // elements of a sub-block: 16 or 32
  int code_min = 0;  // of code[], as used in the formula above (q4_0: -8..7, q4_k: 0..15)
  int code_max = 0;
  bool has_min = false;
  int scale_min = 1;  // of scale[] (1..1: no sub-block scales)
  int scale_max = 1;
  int min_max = 1;                     // of min[], from 0 (1: no sub-block mins)
  const std::int8_t* table = nullptr;  // levels of code 0..code_max of a non-linear type, ascending

  // BlockFields <-> bytes of one block, exact both ways.
  void (*pack)(const BlockFields& fields, std::byte* dst) noexcept = nullptr;
  void (*unpack)(const std::byte* src, BlockFields& fields) noexcept = nullptr;

  int n_subs() const { return block / sub; }
};

}  // namespace nibble::encoding
