// Products by the tiles of AMX: the plain types that all families share.
//
// A weight tile is 32 columns of the 16 rows of a panel as bf16: 16 lines of 64 bytes, line p holding columns 2p and
// 2p + 1 of row r side by side at byte 4r. Every family unpacks its panels to such tiles, scales applied, and the
// products are summed in f32 by the tile unit, columns in order.
#pragma once

#include <stdint.h>

#include "kernel/panel.h"

namespace nibble::kernel {

constexpr int kTileBytes = 1024;

// One call of a kernel: rows [row_begin, row_end) of the matrix, row_begin a multiple of kPanelRows.
struct TileJob {
  const uint8_t* activations;  // rows of bf16
  int64_t stride;              // bytes
  int64_t plane_bytes;         // of a row of bf16
  int64_t blocks;              // of 32 columns in a row
  int64_t n;
  int64_t row_begin;
  int64_t row_end;
  float* out;
  int64_t ldo;
};

// A row of `cols` floats as `planes` rows of bf16, each what the ones before have left, to nearest even; zeros up to
// plane_bytes. Numbers that f32 holds only without its leading bit count as zero.
void round_to_bf16(const float* x, int64_t cols, int planes, int64_t plane_bytes, uint8_t* out) noexcept;

}  // namespace nibble::kernel
