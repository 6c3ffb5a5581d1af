// How the tiles of AMX are set up; for files compiled for it.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace nibble::kernel {

constexpr int kTileRows = 16;  // the most that a tile has

// The memory form of palette 1: up to 16 rows of up to 64 bytes in each of eight tiles.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// The intrinsics do not tell the compiler which memory they touch.
inline void memory_is_touched() { asm volatile("" : : : "memory"); }

}  // namespace nibble::kernel
