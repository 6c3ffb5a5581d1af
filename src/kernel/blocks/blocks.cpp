// The block encodings (q4_0 ... q6_k, iq4): integer products of panels with int8 activations, one scale per 32 columns.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "encoding/block_grid.h"
#include "kernel/blocks/layout.h"

namespace nibble::kernel::blocks {

namespace {

std::int64_t round_up(std::int64_t value) { return (value + 63) / 64 * 64; }
std::int64_t scales_at(std::int64_t cols) { return round_up(cols); }
std::int64_t sums_at(std::int64_t cols) { return scales_at(cols) + round_up(cols / kBlock * 4); }

std::uint64_t activation_row_bytes(std::int64_t cols) noexcept {
  return static_cast<std::uint64_t>(sums_at(cols) + round_up(cols / kBlock * 4));
}

void quantize_scalar(const QuantizeJob& job) noexcept {
  for (std::int64_t t = 0; t < job.n; ++t) {
    std::uint8_t* row = job.out + t * job.stride;
    auto* code = reinterpret_cast<std::int8_t*>(row);
    auto* scale = reinterpret_cast<float*>(row + job.scales_at);
    auto* sum = reinterpret_cast<std::int16_t*>(row + job.sums_at);
    for (std::int64_t b = 0; b < job.blocks; ++b, code += kBlock) {
      const float* x = job.x + t * job.ldx + b * kBlock;
      float largest = 0;
      for (int i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(x[i]));
      scale[b] = largest / 127.0f;
      const float inverse = largest >= kSmallest ? 127.0f / largest : 0.0f;
      sum[2 * b] = sum[2 * b + 1] = 0;
      for (int i = 0; i < kBlock; ++i) {
        code[i] = static_cast<std::int8_t>(std::lrint(x[i] * inverse));
        sum[2 * b + i / 16] = static_cast<std::int16_t>(sum[2 * b + i / 16] + code[i]);
      }
    }
  }
}

template <void (*kQuantize)(const QuantizeJob&) noexcept>
void quantize(const float* x, std::int64_t ldx, std::int64_t n, std::int64_t cols, std::byte* out) noexcept {
  QuantizeJob job{x,
                  ldx,
                  n,
                  cols / kBlock,
                  reinterpret_cast<std::uint8_t*>(out),
                  static_cast<std::int64_t>(activation_row_bytes(cols)),
                  scales_at(cols),
                  sums_at(cols)};
  for (std::int64_t t = 0; t < n; ++t) {  // the padding
    std::uint8_t* row = job.out + t * job.stride;
    std::memset(row + cols, 0, static_cast<std::size_t>(job.scales_at - cols));
    std::memset(row + job.scales_at + cols / kBlock * 4, 0,
                static_cast<std::size_t>(job.sums_at - job.scales_at - cols / kBlock * 4));
    std::memset(row + job.sums_at + cols / kBlock * 4, 0,
                static_cast<std::size_t>(job.stride - job.sums_at - cols / kBlock * 4));
  }
  kQuantize(job);
}

template <const Compute* kCompute>
void compute(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
             std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  const int format = format_index(*matrix.encoding);
  alignas(64) std::uint8_t levels[16] = {};
  if (const std::int8_t* table = matrix.encoding->grid->table) {
    for (int i = 0; i < 16; ++i) levels[i] = static_cast<std::uint8_t>(table[i] + 128);
  }
  const std::int64_t cols = matrix.cols;
  kCompute[format]({reinterpret_cast<const std::uint8_t*>(packed),
                    static_cast<std::int64_t>(panel_bytes(kFormats[format], cols)),
                    cols / kBlock,
                    levels,
                    {reinterpret_cast<const std::uint8_t*>(activations),
                     static_cast<std::int64_t>(activation_row_bytes(cols)), scales_at(cols), sums_at(cols)},
                    n,
                    row_begin,
                    row_end,
                    out,
                    ldo});
}

bool accepts(const encoding::EncodingInfo& info, std::int64_t cols) {
  return format_index(info) >= 0 && cols > 0 && cols % kBlock == 0 && cols % info.block_elements == 0;
}

const ActivationFormat kActivationsScalar{"q8-b32/scalar", activation_row_bytes, quantize<quantize_scalar>};
const ActivationFormat kActivationsAvx2{"q8-b32/avx2", activation_row_bytes, quantize<quantize_avx2>};
const ActivationFormat kActivationsAvx512{"q8-b32/avx512", activation_row_bytes, quantize<quantize_avx512>};
constexpr WeightLayout kLayout{kPanelRows, packed_bytes, pack, unpack_row};

const LinearKernel kKernels[] = {
    {"blocks/avx512", Isa::kAvx512, accepts, &kActivationsAvx512, kLayout, compute<kComputeAvx512>},
    {"blocks/avx2", Isa::kAvx2, accepts, &kActivationsAvx2, kLayout, compute<kComputeAvx2>},
    {"blocks/scalar", Isa::kScalar, accepts, &kActivationsScalar, kLayout, compute<kComputeScalar>},
};

}  // namespace

std::span<const LinearKernel> entries() { return kKernels; }

}  // namespace nibble::kernel::blocks
