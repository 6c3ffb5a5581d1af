// The affine encodings in groups of whole blocks, rows or tensors: integer products of panels with int8 activations.
#include "encoding/affine.h"

#include "kernel/affine/layout.h"
#include "kernel/bf16_activations.h"
#include "kernel/i8_row_activations.h"
#include "kernel/q8_activations.h"

namespace nibble::kernel::affine {

namespace {

ScaleType scale_type(Dtype dtype) {
  return dtype == Dtype::kF32 ? ScaleType::kF32 : dtype == Dtype::kF16 ? ScaleType::kF16 : ScaleType::kBf16;
}

PanelWeights weights_of(const MatrixInfo& matrix, const std::byte* packed) {
  const encoding::AffineParams& params = matrix.encoding->affine;
  return {geometry_of(*matrix.encoding, matrix.cols), scale_type(params.scale_dtype),
          params.symmetric ? encoding::stored_offset(params) : -1,
          reinterpret_cast<const std::uint8_t*>(panels_of(matrix, packed))};
}

template <void (*kCompute)(const Job&) noexcept>
void compute(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
             std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  kCompute({weights_of(matrix, packed), q8_activations(activations, matrix.cols), n, row_begin, row_end, out, ldo});
}

template <void (*kCompute)(const RowsJob&) noexcept, const ActivationFormat& kFormat>
void compute_rows(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
                  std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  kCompute({weights_of(matrix, packed), i8_rows(kFormat, activations, matrix.cols), n, row_begin, row_end, out, ldo});
}

void compute_tiles(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
                   std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  compute_amx(weights_of(matrix, packed),
              tile_job(kBf16Activations, matrix, activations, n, row_begin, row_end, out, ldo));
}

constexpr WeightLayout kLayout{kPanelRows, packed_bytes, pack, unpack_row, column_order};

constexpr std::int64_t kRowTilesMinTokens = 9;

template <void (*kCompute)(const RowsJob&) noexcept, const ActivationFormat& kFormat>
constexpr LinearKernel rows_kernel(std::string_view name, Isa isa, std::int64_t min_tokens = 1) {
  const bool keeps = name.starts_with("affine-kept-rows/");
  return {name, isa, keeps ? accepts_kept : accepts, &kFormat, kLayout, compute_rows<kCompute, kFormat>, min_tokens};
}

const LinearKernel kKernels[] = {
    {"affine/amx", Isa::kAmx, accepts, &kBf16Activations, kLayout, compute_tiles, kTileMinTokens},
    {"affine/avx512", Isa::kAvx512, accepts, &kQ8ActivationsAvx512, kLayout, compute<compute_avx512>},
    {"affine/avx2", Isa::kAvx2, accepts, &kQ8ActivationsAvx2, kLayout, compute<compute_avx2>},
    {"affine/scalar", Isa::kScalar, accepts, &kQ8ActivationsScalar, kLayout, compute<compute_scalar>},
    rows_kernel<compute_rows_amx, kI8RowsAvx512>("affine-rows/amx", Isa::kAmx, kRowTilesMinTokens),
    rows_kernel<compute_rows_avx512, kI8RowsAvx512>("affine-rows/avx512", Isa::kAvx512),
    rows_kernel<compute_rows_avx2, kI8RowsAvx2>("affine-rows/avx2", Isa::kAvx2),
    rows_kernel<compute_rows_scalar, kI8RowsScalar>("affine-rows/scalar", Isa::kScalar),
    rows_kernel<compute_rows_amx, kI8KeptRowsAvx512>("affine-kept-rows/amx", Isa::kAmx, kRowTilesMinTokens),
    rows_kernel<compute_rows_avx512, kI8KeptRowsAvx512>("affine-kept-rows/avx512", Isa::kAvx512),
    rows_kernel<compute_rows_avx2, kI8KeptRowsAvx2>("affine-kept-rows/avx2", Isa::kAvx2),
    rows_kernel<compute_rows_scalar, kI8KeptRowsScalar>("affine-kept-rows/scalar", Isa::kScalar),
};

}  // namespace

std::span<const LinearKernel> entries() { return kKernels; }

}  // namespace nibble::kernel::affine
