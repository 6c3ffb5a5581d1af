#include <immintrin.h>

#include "kernel/roofline_isa.h"

namespace nibble::kernel {

namespace {

struct alignas(64) Config {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// product(): four products on zeroed tiles, sums in the first four.
template <typename Product>
uint64_t repeat(int64_t rounds, Product&& product) {
  const Config config;
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int64_t i = 0; i < rounds; ++i) product();
  uint32_t sums[256];
  _tile_stored(0, sums, 64);
  asm volatile("" : : : "memory");
  _tile_release();
  return sums[0];
}

}  // namespace

uint64_t bf16_tiles(int64_t rounds) {
  return repeat(rounds, [] {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  });
}

uint64_t int8_tiles(int64_t rounds) {
  return repeat(rounds, [] {
    _tile_dpbsud(0, 4, 6);
    _tile_dpbsud(1, 4, 7);
    _tile_dpbsud(2, 5, 6);
    _tile_dpbsud(3, 5, 7);
  });
}

}  // namespace nibble::kernel
