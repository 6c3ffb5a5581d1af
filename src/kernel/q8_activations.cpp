#include "kernel/q8_activations.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace nibble::kernel {

namespace {

std::int64_t round_up(std::int64_t value) { return (value + 63) / 64 * 64; }
std::int64_t scales_at(std::int64_t cols) { return round_up(cols); }
std::int64_t sums_at(std::int64_t cols) { return scales_at(cols) + round_up(cols / kBlock * 4); }

std::uint64_t row_bytes(std::int64_t cols) noexcept {
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
                  static_cast<std::int64_t>(row_bytes(cols)),
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

}  // namespace

const ActivationFormat kQ8ActivationsScalar{"q8-b32/scalar", row_bytes, quantize<quantize_scalar>};
const ActivationFormat kQ8ActivationsAvx2{"q8-b32/avx2", row_bytes, quantize<quantize_q8_avx2>};
const ActivationFormat kQ8ActivationsAvx512{"q8-b32/avx512", row_bytes, quantize<quantize_q8_avx512>};

Activations q8_activations(const std::byte* rows, std::int64_t cols) noexcept {
  return {reinterpret_cast<const std::uint8_t*>(rows), static_cast<std::int64_t>(row_bytes(cols)), scales_at(cols),
          sums_at(cols)};
}

}  // namespace nibble::kernel
