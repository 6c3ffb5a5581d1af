// Activations for the tiles of AMX: rows of bf16, or of two bf16 each that together hold 16 bits of a number.
#pragma once

#include "kernel/linear.h"
#include "kernel/tile.h"

namespace nibble::kernel {

// Rounded to bf16; and (x's bf16, then that of the rest), a plane each, one behind the other in a row.
extern const ActivationFormat kBf16Activations;
extern const ActivationFormat kBf16PairActivations;

// Bytes of one plane of a row: whole blocks of 32 columns, zeros behind the last column.
std::int64_t bf16_plane_bytes(std::int64_t cols) noexcept;

// One call of a tile kernel on activations of one of these formats.
TileJob tile_job(const ActivationFormat& format, const MatrixInfo& matrix, const std::byte* activations, std::int64_t n,
                 std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept;

// From here on unpacking weights to tiles pays.
inline constexpr std::int64_t kTileMinTokens = 9;

}  // namespace nibble::kernel
