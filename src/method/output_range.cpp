#include "method/output_range.h"

#include <algorithm>
#include <cmath>

#include "linalg/gemm.h"
#include "method/affine_range.h"

namespace nibble::method {

namespace {

constexpr int kClips = 10;
constexpr float clip(int i) { return static_cast<float>(1 - i / 20.0); }

// Columns [begin, begin + width) of n rows.
struct Group {
  const float* weights;
  std::int64_t n, cols, begin, width;
  const float* row(std::int64_t r) const { return weights + r * cols + begin; }
};

// Quantized less unquantized at each row's scale: (n, width).
std::vector<float> errors_of(const encoding::AffineParams& params, const Group& group,
                             const std::vector<encoding::ScaleZero>& scales) {
  std::vector<float> errors;
  for (std::int64_t r = 0; r < group.n; ++r) {
    const encoding::ScaleZero& at = scales[static_cast<std::size_t>(r)];
    for (std::int64_t c = 0; c < group.width; ++c) {
      const float value = group.row(r)[c];
      errors.push_back(encoding::decode_code(encoding::nearest_code(params, value, at), at) - value);
    }
  }
  return errors;
}

std::vector<encoding::ScaleZero> best_scales(const encoding::AffineParams& params, const Group& group,
                                             const float* gram) {
  std::vector<Range> ranges;
  for (std::int64_t r = 0; r < group.n; ++r) ranges.push_back(range_of(group.row(r), group.width));
  const auto rows = static_cast<std::size_t>(group.n), width = static_cast<std::size_t>(group.width);
  std::vector<encoding::ScaleZero> best(rows), scales(rows);
  std::vector<float> least(rows), through(rows * width);
  for (int i = 0; i < kClips; ++i) {
    for (std::size_t r = 0; r < rows; ++r) {
      const float end = clip(i) * std::max(std::fabs(ranges[r].low), std::fabs(ranges[r].high));
      scales[r] = encoding::scale_of_range(params, std::max(ranges[r].low, -end), std::min(ranges[r].high, end));
    }
    const std::vector<float> errors = errors_of(params, group, scales);
    linalg::gemm(group.n, group.width, group.width, errors.data(), group.width, gram + group.begin * (group.cols + 1),
                 group.cols, through.data(), group.width);
    for (std::size_t r = 0; r < rows; ++r) {
      float error = 0;
      for (std::size_t c = 0; c < width; ++c) error += errors[r * width + c] * through[r * width + c];
      if (i > 0 && !(error < least[r])) continue;
      least[r] = error;
      best[r] = scales[r];
    }
  }
  return best;
}

}  // namespace

std::vector<encoding::ScaleZero> choose_scales_by_output(const encoding::AffineParams& params, const float* weights,
                                                         std::int64_t n_rows, std::int64_t cols,
                                                         std::span<const float> gram) {
  const std::int64_t groups = encoding::groups_per_row(params, cols), width = encoding::group_columns(params, cols);
  std::vector<encoding::ScaleZero> all(static_cast<std::size_t>(n_rows * groups));
  for (std::int64_t g = 0; g < groups; ++g) {
    const Group group{weights, n_rows, cols, g * width, std::min(width, cols - g * width)};
    const std::vector<encoding::ScaleZero> best = best_scales(params, group, gram.data());
    for (std::int64_t r = 0; r < n_rows; ++r)
      all[static_cast<std::size_t>(r * groups + g)] = best[static_cast<std::size_t>(r)];
  }
  return all;
}

}  // namespace nibble::method
