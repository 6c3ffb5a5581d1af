// The codebook encodings in rows of whole blocks: integer products of looked-up levels with int8 activations.
#include "encoding/codebook.h"

#include "kernel/bf16_activations.h"
#include "kernel/codebook/layout.h"
#include "kernel/q8_activations.h"

namespace nibble::kernel::codebook {

namespace {

template <void (*kCompute)(const Job&) noexcept>
void compute(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
             std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  kCompute({geometry_of(*matrix.encoding, matrix.cols), reinterpret_cast<const std::uint8_t*>(packed),
            q8_activations(activations, matrix.cols), n, row_begin, row_end, out, ldo});
}

void compute_tiles(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
                   std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  const encoding::CodebookParams& params = matrix.encoding->codebook;
  const float* levels = encoding::has_blocks(params) ? encoding::levels_of(params.kind).data() : nullptr;
  compute_amx({geometry_of(*matrix.encoding, matrix.cols), reinterpret_cast<const std::uint8_t*>(packed), levels},
              tile_job(kBf16Activations, matrix, activations, n, row_begin, row_end, out, ldo));
}

constexpr WeightLayout kLayout{kPanelRows, packed_bytes, pack, unpack_row};

const LinearKernel kKernels[] = {
    {"codebook/amx", Isa::kAmx, accepts, &kBf16Activations, kLayout, compute_tiles, kTileMinTokens},
    {"codebook/avx512", Isa::kAvx512, accepts, &kQ8ActivationsAvx512, kLayout, compute<compute_avx512>},
    {"codebook/avx2", Isa::kAvx2, accepts, &kQ8ActivationsAvx2, kLayout, compute<compute_avx2>},
    {"codebook/scalar", Isa::kScalar, accepts, &kQ8ActivationsScalar, kLayout, compute<compute_scalar>},
};

}  // namespace

std::span<const LinearKernel> entries() { return kKernels; }

}  // namespace nibble::kernel::codebook
