#include "kernel/bf16_activations.h"

#include <algorithm>

#include "kernel/panel.h"

namespace nibble::kernel {

namespace {

constexpr std::int64_t kLine = 64;

// An odd number of lines: rows a power of two apart crowd into few sets of the caches.
template <int kPlanes>
std::uint64_t row_bytes(std::int64_t cols) noexcept {
  const std::int64_t lines = bf16_plane_bytes(cols) / kLine * kPlanes;
  return static_cast<std::uint64_t>((lines | 1) * kLine);
}

template <int kPlanes>
void round_rows(const InputRounding& /*inputs*/, const float* x, std::int64_t ldx, std::int64_t n, std::int64_t cols,
                std::byte* out) noexcept {
  auto* rows = reinterpret_cast<std::uint8_t*>(out);
  const auto stride = static_cast<std::int64_t>(row_bytes<kPlanes>(cols));
  for (std::int64_t t = 0; t < n; ++t)
    round_to_bf16(x + t * ldx, cols, kPlanes, bf16_plane_bytes(cols), rows + t * stride);
}

}  // namespace

const ActivationFormat kBf16Activations{"bf16/amx", row_bytes<1>, round_rows<1>};
const ActivationFormat kBf16PairActivations{"bf16-pair/amx", row_bytes<2>, round_rows<2>};

std::int64_t bf16_plane_bytes(std::int64_t cols) noexcept { return (cols + kBlock - 1) / kBlock * kBlock * 2; }

TileJob tile_job(const ActivationFormat& format, const MatrixInfo& matrix, const std::byte* activations, std::int64_t n,
                 std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  return {reinterpret_cast<const std::uint8_t*>(activations),
          static_cast<std::int64_t>(format.row_bytes(matrix.cols)),
          bf16_plane_bytes(matrix.cols),
          (matrix.cols + kBlock - 1) / kBlock,
          n,
          row_begin,
          row_end,
          out,
          ldo};
}

}  // namespace nibble::kernel
