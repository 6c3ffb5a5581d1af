// The affine encodings in groups of whole blocks, rows or tensors: integer products of panels with int8 activations.
#include "encoding/affine.h"

#include "kernel/affine/layout.h"
#include "kernel/bf16_activations.h"
#include "kernel/q8_activations.h"

namespace nibble::kernel::affine {

namespace {

ScaleType scale_type(Dtype dtype) {
  return dtype == Dtype::kF32 ? ScaleType::kF32 : dtype == Dtype::kF16 ? ScaleType::kF16 : ScaleType::kBf16;
}

template <void (*kCompute)(const Job&) noexcept>
void compute(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
             std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  const encoding::AffineParams& params = matrix.encoding->affine;
  const Geometry geometry = geometry_of(*matrix.encoding, matrix.cols);
  kCompute({geometry, scale_type(params.scale_dtype), params.symmetric ? encoding::stored_offset(params) : -1,
            reinterpret_cast<const std::uint8_t*>(panels_of(matrix, packed)), q8_activations(activations, matrix.cols),
            n, row_begin, row_end, out, ldo});
}

void compute_tiles(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
                   std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  const encoding::AffineParams& params = matrix.encoding->affine;
  compute_amx({geometry_of(*matrix.encoding, matrix.cols), scale_type(params.scale_dtype),
               params.symmetric ? encoding::stored_offset(params) : -1,
               reinterpret_cast<const std::uint8_t*>(panels_of(matrix, packed))},
              tile_job(kBf16Activations, matrix, activations, n, row_begin, row_end, out, ldo));
}

constexpr WeightLayout kLayout{kPanelRows, packed_bytes, pack, unpack_row, column_order};

const LinearKernel kKernels[] = {
    {"affine/amx", Isa::kAmx, accepts, &kBf16Activations, kLayout, compute_tiles, kTileMinTokens},
    {"affine/avx512", Isa::kAvx512, accepts, &kQ8ActivationsAvx512, kLayout, compute<compute_avx512>},
    {"affine/avx2", Isa::kAvx2, accepts, &kQ8ActivationsAvx2, kLayout, compute<compute_avx2>},
    {"affine/scalar", Isa::kScalar, accepts, &kQ8ActivationsScalar, kLayout, compute<compute_scalar>},
};

}  // namespace

std::span<const LinearKernel> entries() { return kKernels; }

}  // namespace nibble::kernel::affine
