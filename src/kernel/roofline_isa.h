// The loops that roofline.h times, one set per instruction set.
#pragma once

#include <stdint.h>

namespace nibble::kernel {

struct RooflineLoops {
  // Reads n bytes (a multiple of kReadGrain) once and returns something that depends on all of them.
  // One stream, one stream with prefetches, four streams side by side.
  uint64_t (*read[3])(const uint8_t* data, int64_t n);
  // Runs `rounds` rounds of independent register-only products.
  int64_t int8_ops_per_round;
  uint64_t (*int8_dot)(int64_t rounds);
  int64_t f32_ops_per_round;
  uint64_t (*f32_fma)(int64_t rounds);
};

constexpr int64_t kReadGrain = 4096;

extern const RooflineLoops kRooflineAvx2;
extern const RooflineLoops kRooflineAvx512;

// Four tile products of bf16, 16 x 16 x 32 each, a round, or of int8, 16 x 16 x 64; with AMX only.
constexpr int64_t kTileOpsPerRound = 4 * 16 * 16 * 32 * 2;
uint64_t bf16_tiles(int64_t rounds);
uint64_t int8_tiles(int64_t rounds);

}  // namespace nibble::kernel
