// A tile of a product whose factors are rounded to bf16 in one or two parts: the plain types of the AMX kernel.
#pragma once

#include <stdint.h>

namespace nibble::linalg {

constexpr int64_t kBf16TileRows = 512, kBf16TileCols = 512;  // of a call, at most
constexpr int64_t kBf16Chunk = 512;  // numbers that are summed over, of all parts, packed at a time: for the caches

struct Bf16Factor {
  const float* from;
  int64_t stride;  // between rows as they lie, in numbers
  bool transposed;
};

// c (m, n) = a (m, k) * b (k, n), or added to it, summed in f32. `packed`: kBf16PackedBytes, at 64.
struct Bf16Job {
  Bf16Factor a, b;
  int64_t m, n, k;
  int parts;  // 2: the product of the second parts is left out
  bool adds;
  float* c;
  int64_t ldc;
  uint8_t* packed;
};
constexpr int64_t kBf16PackedBytes = 2 * (kBf16TileRows + kBf16TileCols) * kBf16Chunk;

void bf16_product(const Bf16Job& job) noexcept;

}  // namespace nibble::linalg
