// Scaled floats (FP8, MX, NVFP4) in tiles of whole halves of a block, rows or tensors: f32 products of panels of 16
// rows with f32 activations, which are rounded as the weights want it.
#include "encoding/scaled.h"

#include "kernel/bf16_activations.h"
#include "kernel/f32_activations.h"
#include "kernel/scaled/layout.h"

namespace nibble::kernel::scaled {

namespace {

template <void (*kCompute)(const Job&) noexcept>
void compute(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
             std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  kCompute({geometry_of(*matrix.encoding, matrix.cols), reinterpret_cast<const std::uint8_t*>(packed),
            reinterpret_cast<const std::uint8_t*>(activations),
            static_cast<std::int64_t>(kF32Activations.row_bytes(matrix.cols)), n, row_begin, row_end, out, ldo});
}

void compute_tiles(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
                   std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  compute_amx(geometry_of(*matrix.encoding, matrix.cols), reinterpret_cast<const std::uint8_t*>(packed),
              tile_job(kBf16Activations, matrix, activations, n, row_begin, row_end, out, ldo));
}

constexpr WeightLayout kLayout{kPanelRows, packed_bytes, pack, unpack_row};

// Machines without AVX2 take the generic kernel: it needs no fused multiply-add.
const LinearKernel kKernels[] = {
    {"scaled/amx", Isa::kAmx, accepts, &kBf16Activations, kLayout, compute_tiles, kTileMinTokens},
    {"scaled/avx512", Isa::kAvx512, accepts, &kF32Activations, kLayout, compute<compute_avx512>},
    {"scaled/avx2", Isa::kAvx2, accepts, &kF32Activations, kLayout, compute<compute_avx2>},
};

}  // namespace

std::span<const LinearKernel> entries() { return kKernels; }

}  // namespace nibble::kernel::scaled
