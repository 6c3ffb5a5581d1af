#include "kernel/f32_activations.h"

#include <cstring>

#include "encoding/activation.h"

namespace nibble::kernel {

namespace {

// Rows a power of two apart crowd into few sets of the caches: long ones get 17 lines more.
constexpr std::uint64_t kLine = 64;
constexpr std::uint64_t kSpread = 17 * kLine;
constexpr std::uint64_t kLong = 1024;

std::uint64_t row_bytes(std::int64_t cols) noexcept {
  const std::uint64_t bytes = (static_cast<std::uint64_t>(cols) * sizeof(float) + kLine - 1) / kLine * kLine;
  return bytes < kLong ? bytes : bytes + kSpread;
}

void copy(const InputRounding& inputs, const float* x, std::int64_t ldx, std::int64_t n, std::int64_t cols,
          std::byte* out) noexcept {
  const auto bytes = static_cast<std::size_t>(cols) * sizeof(float);
  const auto stride = static_cast<std::size_t>(row_bytes(cols));
  for (std::int64_t t = 0; t < n; ++t, x += ldx, out += stride) {
    if (inputs.activation != nullptr) {
      encoding::round_inputs(inputs, x, cols, reinterpret_cast<float*>(out));
    } else {
      std::memcpy(out, x, bytes);
    }
    std::memset(out + bytes, 0, stride - bytes);
  }
}

bool rounds(const encoding::ActivationInfo& /*inputs*/) noexcept { return true; }

}  // namespace

const ActivationFormat kF32Activations{"f32", row_bytes, copy, rounds};

}  // namespace nibble::kernel
