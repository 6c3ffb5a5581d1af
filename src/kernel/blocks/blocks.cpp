// The block encodings (q4_0 ... q6_k, iq4, mxfp4): integer products of panels with int8 activations, one scale per 32
// columns.
#include "kernel/bf16_activations.h"
#include "kernel/blocks/layout.h"
#include "kernel/q8_activations.h"

namespace nibble::kernel::blocks {

namespace {

// Levels + offset of table types.
struct alignas(64) Levels {
  explicit Levels(const encoding::EncodingInfo& info) {
    const std::int8_t* table = level_table(info);
    for (int i = 0; table != nullptr && i < 16; ++i)
      level[i] = static_cast<std::uint8_t>(table[i] + kFormats[format_index(info)].offset);
  }
  std::uint8_t level[16] = {};
};

template <const Compute* kCompute>
void compute(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
             std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  const int format = format_index(*matrix.encoding);
  const Levels levels(*matrix.encoding);
  const std::int64_t cols = matrix.cols;
  kCompute[format]({reinterpret_cast<const std::uint8_t*>(packed),
                    static_cast<std::int64_t>(panel_bytes(kFormats[format], cols)), cols / kBlock, levels.level,
                    q8_activations(activations, cols), n, row_begin, row_end, out, ldo});
}

void compute_tiles(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
                   std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  const int format = format_index(*matrix.encoding);
  const Levels levels(*matrix.encoding);
  kComputeAmx[format]({reinterpret_cast<const std::uint8_t*>(packed),
                       static_cast<std::int64_t>(panel_bytes(kFormats[format], matrix.cols)), levels.level},
                      tile_job(kBf16Activations, matrix, activations, n, row_begin, row_end, out, ldo));
}

bool accepts(const encoding::EncodingInfo& info, std::int64_t cols) {
  return format_index(info) >= 0 && cols > 0 && cols % kBlock == 0 && cols % info.block_elements == 0;
}

constexpr WeightLayout kLayout{kPanelRows, packed_bytes, pack, unpack_row};

const LinearKernel kKernels[] = {
    {"blocks/amx", Isa::kAmx, accepts, &kBf16Activations, kLayout, compute_tiles, kTileMinTokens},
    {"blocks/avx512", Isa::kAvx512, accepts, &kQ8ActivationsAvx512, kLayout, compute<kComputeAvx512>},
    {"blocks/avx2", Isa::kAvx2, accepts, &kQ8ActivationsAvx2, kLayout, compute<kComputeAvx2>},
    {"blocks/scalar", Isa::kScalar, accepts, &kQ8ActivationsScalar, kLayout, compute<kComputeScalar>},
};

}  // namespace

std::span<const LinearKernel> entries() { return kKernels; }

}  // namespace nibble::kernel::blocks
