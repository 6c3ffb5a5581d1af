#include <algorithm>
#include <cmath>
#include <cstring>

#include "encoding/affine.h"
#include "encoding/codebook.h"
#include "encoding/encoding.h"
#include "encoding/scaled.h"

namespace nibble::encoding {

namespace {

constexpr std::int64_t kStretch = 256;  // columns decoded at a time: a multiple of every block
constexpr int kF16Exponent = 0x7C00;
constexpr int kF32Exponent = 0x7F800000;

// NaN and infinity have every bit of the exponent set. Numbers of the same width as the bits, so that whole vectors are
// compared.
template <typename Bits>
bool numbers_are_finite(const std::byte* row, std::int64_t cols, Bits exponent) noexcept {
  Bits largest = 0;
  for (std::int64_t c = 0; c < cols; ++c) {
    Bits bits;
    std::memcpy(&bits, row + static_cast<std::size_t>(c) * sizeof(Bits), sizeof(Bits));
    largest = std::max(largest, static_cast<Bits>(bits & exponent));
  }
  return largest != exponent;
}

bool scales_are_finite(const EncodingInfo& info, const std::byte* row, std::int64_t blocks) noexcept {
  int found = 0;
  for (const int at : info.f16_scales_at) {
    const std::byte* scale = row + at;
    for (std::int64_t b = 0; b < blocks; ++b, scale += info.block_bytes) {
      std::uint16_t bits;
      std::memcpy(&bits, scale, sizeof(bits));
      found |= (bits & kF16Exponent) == kF16Exponent;
    }
  }
  return found == 0;
}

bool values_are_finite(const EncodingInfo& info, const std::byte* row, std::int64_t cols) noexcept {
  float values[kStretch];
  for (std::int64_t begin = 0; begin < cols; begin += kStretch) {
    const std::int64_t count = std::min(kStretch, cols - begin);
    info.decode(row + begin / info.block_elements * info.block_bytes, values, count);
    if (!numbers_are_finite<std::int32_t>(reinterpret_cast<const std::byte*>(values), count, kF32Exponent))
      return false;
  }
  return true;
}

bool affine_row_is_finite(const TensorView& view, std::int64_t row) {
  const AffineParams& params = view.encoding->affine;
  if (params.kept > 0) {
    const std::byte* kept = view.part(PartRole::kOutliers).bytes.data() + row * params.kept * 2;
    if (!numbers_are_finite<std::uint16_t>(kept, params.kept, kF16Exponent)) return false;
  }
  const std::int64_t groups = groups_per_row(params, view.cols());
  const std::byte* scales = view.part(PartRole::kScales).bytes.data();
  const std::byte* zeros = params.symmetric ? nullptr : view.part(PartRole::kZeros).bytes.data();
  const std::int64_t first = params.granularity == Granularity::kTensor ? 0 : row * groups;
  for (std::int64_t g = 0; g < groups; ++g) {
    if (!std::isfinite(load_scale_zero(params, scales, zeros, first + g).scale)) return false;
  }
  return true;
}

}  // namespace

bool row_is_finite(const EncodingInfo& info, const std::byte* row, std::int64_t cols) noexcept {
  if (info.family == Family::kBlock) {
    return info.f16_scales_at.empty() ? values_are_finite(info, row, cols)
                                      : scales_are_finite(info, row, cols / info.block_elements);
  }
  switch (info.dtype) {
    case Dtype::kF32:
      return numbers_are_finite<std::int32_t>(row, cols, kF32Exponent);
    case Dtype::kF16:
      return numbers_are_finite<std::int16_t>(row, cols, kF16Exponent);
    case Dtype::kBf16:
      return numbers_are_finite<std::int16_t>(row, cols, kF32Exponent >> 16);
    default:
      return values_are_finite(info, row, cols);
  }
}

std::int64_t find_not_finite(const TensorView& view, std::int64_t row_begin, std::int64_t row_end) {
  const EncodingInfo& info = *view.encoding;
  const auto is_finite = [&](std::int64_t row) {
    if (info.family == Family::kAffine) return affine_row_is_finite(view, row);
    if (info.family == Family::kCodebook) return codebook_row_is_finite(view, row);
    if (info.family == Family::kScaled) return scaled_row_is_finite(info.scaled, view.cols(), scaled_row(view, row));
    const std::uint64_t stride = row_bytes(info, view.cols());
    return row_is_finite(info, view.data().data() + static_cast<std::uint64_t>(row) * stride, view.cols());
  };
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    if (!is_finite(row)) return row;
  }
  return row_end;
}

}  // namespace nibble::encoding
