#include "kernel/q8_activations.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "encoding/activation.h"

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
      float largest = 0, inverse = 0;
      for (int i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(x[i]));
      if (job.given != nullptr) {
        scale[b] = job.given[b];
        if (scale[b] >= kSmallestScale) inverse = 1.0f / scale[b];
      } else {
        scale[b] = largest / 127.0f;
        if (largest >= kSmallest) inverse = 127.0f / largest;
      }
      sum[2 * b] = sum[2 * b + 1] = 0;
      for (int i = 0; i < kBlock; ++i) {
        code[i] = static_cast<std::int8_t>(std::lrint(std::clamp(x[i] * inverse, -job.top, job.top)));
        sum[2 * b + i / 16] = static_cast<std::int16_t>(sum[2 * b + i / 16] + code[i]);
      }
    }
  }
}

template <void (*kQuantize)(const QuantizeJob&) noexcept>
void quantize(const InputRounding& inputs, const float* x, std::int64_t ldx, std::int64_t n, std::int64_t cols,
              std::byte* out) noexcept {
  QuantizeJob job{x,
                  ldx,
                  n,
                  cols / kBlock,
                  reinterpret_cast<std::uint8_t*>(out),
                  static_cast<std::int64_t>(row_bytes(cols)),
                  scales_at(cols),
                  sums_at(cols),
                  nullptr,
                  127.0f};
  for (std::int64_t t = 0; t < n; ++t) {  // the padding
    std::uint8_t* row = job.out + t * job.stride;
    std::memset(row + cols, 0, static_cast<std::size_t>(job.scales_at - cols));
    std::memset(row + job.scales_at + cols / kBlock * 4, 0,
                static_cast<std::size_t>(job.sums_at - job.scales_at - cols / kBlock * 4));
    std::memset(row + job.sums_at + cols / kBlock * 4, 0,
                static_cast<std::size_t>(job.stride - job.sums_at - cols / kBlock * 4));
  }
  if (inputs.activation == nullptr) return kQuantize(job);
  job.n = 1;
  job.top = encoding::largest_level(*inputs.activation);
  for (std::int64_t t = 0; t < n; ++t, job.x += ldx, job.out += job.stride) {
    auto* scales = reinterpret_cast<float*>(job.out + job.scales_at);
    encoding::block_scales(inputs, job.x, cols, kBlock, scales);
    job.given = scales;
    kQuantize(job);
  }
}

bool rounds(const encoding::ActivationInfo& inputs) noexcept { return encoding::has_block_scales(inputs, kBlock); }

}  // namespace

const ActivationFormat kQ8ActivationsScalar{"q8-b32/scalar", row_bytes, quantize<quantize_scalar>, rounds};
const ActivationFormat kQ8ActivationsAvx2{"q8-b32/avx2", row_bytes, quantize<quantize_q8_avx2>, rounds};
const ActivationFormat kQ8ActivationsAvx512{"q8-b32/avx512", row_bytes, quantize<quantize_q8_avx512>, rounds};

Activations q8_activations(const std::byte* rows, std::int64_t cols) noexcept {
  return {reinterpret_cast<const std::uint8_t*>(rows), static_cast<std::int64_t>(row_bytes(cols)), scales_at(cols),
          sums_at(cols)};
}

}  // namespace nibble::kernel
