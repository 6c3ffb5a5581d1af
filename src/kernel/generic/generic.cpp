// Any encoding that decodes, on any machine: rows are kept as the file has them and decoded a stretch at a time, f32
// activations. Affine rows, whose parts lie apart, are kept as f32.
#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "kernel/f32_activations.h"
#include "kernel/linear.h"

namespace nibble::kernel::generic {

namespace {

constexpr std::int64_t kStretch = 256;  // columns decoded at a time: a multiple of every block

std::uint64_t row_stride(const MatrixInfo& matrix) {
  if (matrix.encoding->decode == nullptr) return checked_mul(static_cast<std::uint64_t>(matrix.cols), std::uint64_t{4});
  return encoding::row_bytes(*matrix.encoding, matrix.cols);
}

std::uint64_t packed_bytes(const MatrixInfo& matrix) {
  return checked_mul(static_cast<std::uint64_t>(matrix.rows), row_stride(matrix));
}

void pack(const TensorView& weights, const std::int32_t* row_map, std::int64_t row_begin, std::int64_t row_end,
          std::byte* packed) {
  const std::uint64_t stride = row_stride({weights.encoding, weights.rows(), weights.cols()});
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    const std::int64_t source = row_map != nullptr ? row_map[row] : row;
    std::byte* dst = packed + static_cast<std::uint64_t>(row) * stride;
    if (weights.encoding->decode == nullptr) {
      encoding::decode_rows(weights, source, source + 1, reinterpret_cast<float*>(dst));
    } else {
      std::memcpy(dst, weights.data().data() + static_cast<std::uint64_t>(source) * stride, stride);
    }
  }
}

// `count` columns of a packed row from column `begin`, both multiples of the block.
void decode_stretch(const encoding::EncodingInfo& info, const std::byte* row, std::int64_t begin, std::int64_t count,
                    float* out) noexcept {
  if (info.decode == nullptr) {
    std::memcpy(out, row + begin * 4, static_cast<std::size_t>(count) * 4);
  } else {
    info.decode(row + begin / info.block_elements * info.block_bytes, out, count);
  }
}

void unpack_row(const MatrixInfo& matrix, const std::byte* packed, std::int64_t row, float* out) noexcept {
  decode_stretch(*matrix.encoding, packed + static_cast<std::uint64_t>(row) * row_stride(matrix), 0, matrix.cols, out);
}

// Eight running sums, so that the compiler may use vectors without reordering any of them.
float dot(const float* a, const float* b, std::int64_t n) noexcept {
  float lane[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) lane[j] += a[i + j] * b[i + j];
  }
  for (; i < n; ++i) lane[0] += a[i] * b[i];
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

void compute(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
             std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  const std::uint64_t stride = row_stride(matrix);
  const std::uint64_t activation_stride = kF32Activations.row_bytes(matrix.cols);
  alignas(64) float weights[kStretch];
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    const std::byte* src = packed + static_cast<std::uint64_t>(row) * stride;
    for (std::int64_t t = 0; t < n; ++t) out[t * ldo + row] = 0;
    for (std::int64_t begin = 0; begin < matrix.cols; begin += kStretch) {
      const std::int64_t count = std::min(kStretch, matrix.cols - begin);
      decode_stretch(*matrix.encoding, src, begin, count, weights);
      for (std::int64_t t = 0; t < n; ++t) {
        const auto* x = reinterpret_cast<const float*>(activations + static_cast<std::uint64_t>(t) * activation_stride);
        out[t * ldo + row] += dot(weights, x + begin, count);
      }
    }
  }
}

bool accepts(const encoding::EncodingInfo& info, std::int64_t cols) {
  if (info.family == encoding::Family::kAffine) return true;
  return info.decode != nullptr && kStretch % info.block_elements == 0 && cols % info.block_elements == 0;
}

const LinearKernel kKernels[] = {
    {"generic/scalar", Isa::kScalar, accepts, &kF32Activations, {1, packed_bytes, pack, unpack_row}, compute},
};

}  // namespace

std::span<const LinearKernel> entries() { return kKernels; }

}  // namespace nibble::kernel::generic
