// f32, f16 and bf16 weights: f32 products of panels of 16 rows with f32 activations.
#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "kernel/bf16_activations.h"
#include "kernel/dense/panel.h"
#include "kernel/f32_activations.h"
#include "kernel/linear.h"

namespace nibble::kernel::dense {

namespace {

// Index of the scalar's kernels, or -1.
int scalar_index(const encoding::EncodingInfo& info) {
  if (info.family != encoding::Family::kPlain) return -1;
  constexpr Dtype kDtypes[kScalarCount] = {Dtype::kF32, Dtype::kF16, Dtype::kBf16};
  const auto* found = std::find(kDtypes, kDtypes + kScalarCount, info.dtype);
  return found == kDtypes + kScalarCount ? -1 : static_cast<int>(found - kDtypes);
}

std::uint64_t packed_bytes(const MatrixInfo& matrix) {
  const auto rows = static_cast<std::uint64_t>((matrix.rows + kPanelRows - 1) / kPanelRows * kPanelRows);
  return checked_mul(rows, encoding::row_bytes(*matrix.encoding, matrix.cols));
}

// Transposes up to 16 rows of values of kBytes each.
template <int kBytes>
void pack_panel(const std::byte* const (&rows)[kPanelRows], int n_rows, std::int64_t cols, std::byte* dst) {
  if (n_rows < kPanelRows) std::memset(dst, 0, static_cast<std::size_t>(cols) * kPanelRows * kBytes);
  for (std::int64_t c = 0; c < cols; ++c) {
    for (int r = 0; r < n_rows; ++r) std::memcpy(dst + (c * kPanelRows + r) * kBytes, rows[r] + c * kBytes, kBytes);
  }
}

void pack(const TensorView& weights, const std::int32_t* row_map, std::int64_t row_begin, std::int64_t row_end,
          std::byte* packed) {
  const std::int64_t cols = weights.cols();
  const std::uint64_t stride = encoding::row_bytes(*weights.encoding, cols);
  for (std::int64_t first = row_begin; first < row_end; first += kPanelRows) {
    const std::byte* rows[kPanelRows] = {};
    const int n_rows = static_cast<int>(std::min<std::int64_t>(kPanelRows, row_end - first));
    for (int r = 0; r < n_rows; ++r) {
      const std::int64_t source = row_map != nullptr ? row_map[first + r] : first + r;
      rows[r] = weights.data().data() + static_cast<std::uint64_t>(source) * stride;
      if (!encoding::row_is_finite(*weights.encoding, rows[r], cols)) {
        fail(ErrorCode::kFormat, "row {} holds a weight that is NaN or infinite", source);
      }
    }
    std::byte* dst = packed + static_cast<std::uint64_t>(first) * stride;
    if (weights.encoding->block_bytes == 4) {
      pack_panel<4>(rows, n_rows, cols, dst);
    } else {
      pack_panel<2>(rows, n_rows, cols, dst);
    }
  }
}

void unpack_row(const MatrixInfo& matrix, const std::byte* packed, std::int64_t row, float* out) noexcept {
  constexpr std::int64_t kColumns = 64;
  const auto bytes = static_cast<std::uint64_t>(matrix.encoding->block_bytes);
  const std::byte* src = packed + (static_cast<std::uint64_t>(row / kPanelRows * kPanelRows * matrix.cols) +
                                   static_cast<std::uint64_t>(row % kPanelRows)) *
                                      bytes;
  std::byte values[kColumns * 4];
  for (std::int64_t begin = 0; begin < matrix.cols; begin += kColumns) {
    const std::int64_t count = std::min(kColumns, matrix.cols - begin);
    for (std::int64_t c = 0; c < count; ++c) {
      std::memcpy(values + static_cast<std::uint64_t>(c) * bytes,
                  src + static_cast<std::uint64_t>((begin + c) * kPanelRows) * bytes, bytes);
    }
    matrix.encoding->decode(values, out + begin, count);
  }
}

template <const Compute* kCompute>
void compute(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
             std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  kCompute[scalar_index(*matrix.encoding)](
      {reinterpret_cast<const std::uint8_t*>(packed), matrix.cols, reinterpret_cast<const std::uint8_t*>(activations),
       static_cast<std::int64_t>(kF32Activations.row_bytes(matrix.cols)), n, row_begin, row_end, out, ldo});
}

void compute_tiles(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
                   std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  kComputeAmx[scalar_index(*matrix.encoding)](
      reinterpret_cast<const std::uint8_t*>(packed), matrix.cols,
      tile_job(kBf16PairActivations, matrix, activations, n, row_begin, row_end, out, ldo));
}

template <Scalar kScalar>
bool is_scalar(const encoding::EncodingInfo& info, std::int64_t cols) {
  return scalar_index(info) == kScalar && cols > 0;
}

bool accepts(const encoding::EncodingInfo& info, std::int64_t cols) { return scalar_index(info) >= 0 && cols > 0; }

constexpr WeightLayout kLayout{kPanelRows, packed_bytes, pack, unpack_row};

// Machines without AVX2 take the generic kernel: it needs no fused multiply-add.
const LinearKernel kKernels[] = {
    {"dense/amx-f16", Isa::kAmx, is_scalar<kF16>, &kBf16PairActivations, kLayout, compute_tiles, kTileMinTokens, 3},
    {"dense/amx-bf16", Isa::kAmx, is_scalar<kBf16>, &kBf16PairActivations, kLayout, compute_tiles, kTileMinTokens, 2},
    {"dense/avx512", Isa::kAvx512, accepts, &kF32Activations, kLayout, compute<kComputeAvx512>},
    {"dense/avx2", Isa::kAvx2, accepts, &kF32Activations, kLayout, compute<kComputeAvx2>},
};

}  // namespace

std::span<const LinearKernel> entries() { return kKernels; }

}  // namespace nibble::kernel::dense
