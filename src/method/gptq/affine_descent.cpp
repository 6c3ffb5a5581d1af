#include "method/gptq/affine_descent.h"

#include <algorithm>
#include <cmath>

#include "linalg/gemm.h"

namespace nibble::method::gptq {

using encoding::ScaleZero;

namespace {

constexpr std::int64_t kTile = 128;  // columns whose changes are spread to all others at once

// An error (v - w) changed by a u - b 1, u the codes less zero: what that adds to the row's error is
// 2 (a ug - b g1) + a² uu - 2 a b u1 + b² one.
struct Quadratic {
  double uu = 0, ug = 0, u1 = 0, g1 = 0, one = 0;
  double change(double a, double b) const { return 2 * (a * ug - b * g1) + a * a * uu - 2 * a * b * u1 + b * b * one; }
};

struct Choice {
  ScaleZero at;
  double change = 0;
};

// The best scale for the zero as it is and for its neighbours; codes stay.
Choice best_scale(const encoding::AffineParams& params, const Quadratic& q, const ScaleZero& now) {
  Choice best{now, 0};
  const int reach = params.symmetric ? 0 : 1;
  for (int step = -reach; step <= reach; ++step) {
    const int zero = now.zero + step;
    if (step != 0 && (zero < params.least_zero || zero >= 1 << params.bits)) continue;
    // value = s (code - zero - step) = (s0 + a)(u - step): the change is a u - (s0 + a) step.
    const double s0 = static_cast<double>(now.scale), t = step;
    const double curve = q.uu - 2 * t * q.u1 + t * t * q.one;
    const double slope = q.ug - t * q.g1 - s0 * t * (q.u1 - t * q.one);
    if (!(curve > 0)) continue;
    const double wanted = std::max(s0 - slope / curve, 0.0);
    const float scale = encoding::round_scale(params.scale_dtype, static_cast<float>(wanted));
    if (!(scale > 0) || !std::isfinite(scale)) continue;
    const double a = static_cast<double>(scale) - s0, change = q.change(a, (s0 + a) * t);
    if (change < best.change) best = {{scale, zero}, change};
  }
  return best;
}

}  // namespace

AffineDescent::AffineDescent(const encoding::AffineParams& params, std::int64_t cols, std::span<const float> gram)
    : params_(params), cols_(cols), gram_(gram), sums_(static_cast<std::size_t>(cols)) {
  const std::int64_t width = encoding::group_columns(params, cols);
  for (std::int64_t c = 0; c < cols; ++c) {
    const std::int64_t begin = c / width * width, end = std::min(cols, begin + width);
    for (std::int64_t k = begin; k < end; ++k)
      sums_[static_cast<std::size_t>(c)] += gram[static_cast<std::size_t>(c * cols + k)];
  }
}

void AffineDescent::pass(AffineRows& rows, std::vector<float>& values, std::vector<float>& gradient) const {
  if (params_.granularity != encoding::Granularity::kTensor) {
    for (std::int64_t group = 0; group < rows.groups; ++group) refit_group(rows, group, values, gradient);
  }
  for (std::int64_t begin = 0; begin < cols_; begin += kTile)
    descend_tile(rows, begin, std::min(cols_, begin + kTile), values, gradient);
}

void AffineDescent::refit_group(AffineRows& rows, std::int64_t group, std::vector<float>& values,
                                std::vector<float>& gradient) const {
  const std::int64_t begin = group * rows.width, n = rows.group_end(group) - begin;
  std::vector<float> levels(static_cast<std::size_t>(rows.n * n)), products(levels.size());
  for (std::int64_t r = 0; r < rows.n; ++r) {
    for (std::int64_t i = 0; i < n; ++i)
      levels[static_cast<std::size_t>(r * n + i)] =
          static_cast<float>(rows.codes[static_cast<std::size_t>(r * cols_ + begin + i)] - rows.at(r, group).zero);
  }
  linalg::gemm(rows.n, n, n, levels.data(), n, gram_.data() + begin * cols_ + begin, cols_, products.data(), n);
  std::vector<float> change(levels.size());
  for (std::int64_t r = 0; r < rows.n; ++r) {
    Quadratic q;
    for (std::int64_t i = 0; i < n; ++i) {
      const auto at = static_cast<std::size_t>(r * n + i);
      const auto level = static_cast<double>(levels[at]);
      const auto g = static_cast<double>(gradient[static_cast<std::size_t>(r * cols_ + begin + i)]);
      const auto sum = static_cast<double>(sums_[static_cast<std::size_t>(begin + i)]);
      q.uu += level * static_cast<double>(products[at]);
      q.ug += level * g;
      q.u1 += level * sum;
      q.g1 += g;
      q.one += sum;
    }
    const Choice choice = best_scale(params_, q, rows.at(r, group));
    if (!(choice.change < 0)) continue;
    rows.at(r, group) = choice.at;
    for (std::int64_t i = 0; i < n; ++i) {
      float& value = values[static_cast<std::size_t>(r * cols_ + begin + i)];
      const float now = encoding::decode_code(rows.codes[static_cast<std::size_t>(r * cols_ + begin + i)], choice.at);
      change[static_cast<std::size_t>(r * n + i)] = value - now;
      value = now;
    }
  }
  linalg::gemm_subtract(rows.n, cols_, n, change.data(), n, gram_.data() + begin * cols_, cols_, gradient.data(),
                        cols_);
}

void AffineDescent::descend_tile(AffineRows& rows, std::int64_t begin, std::int64_t end, std::vector<float>& values,
                                 std::vector<float>& gradient) const {
  const std::int64_t n = end - begin;
  const encoding::CodeRange range = encoding::code_range(params_);
  std::vector<float> change(static_cast<std::size_t>(rows.n * n)), local(static_cast<std::size_t>(n));
  for (std::int64_t r = 0; r < rows.n; ++r) {
    std::copy_n(gradient.data() + r * cols_ + begin, n, local.data());
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t col = begin + i;
      const auto at = static_cast<std::size_t>(r * cols_ + col);
      const ScaleZero& scale = rows.at(r, col / rows.width);
      const float* products = gram_.data() + col * cols_ + begin;
      const float curve = products[i], slope = local[static_cast<std::size_t>(i)];
      if (!(curve > 0) || !(scale.scale > 0)) continue;
      const float steps = std::clamp(std::nearbyint(-slope / (curve * scale.scale)), -512.0f, 512.0f);
      if (steps == 0) continue;
      const int code = std::clamp(rows.codes[at] + static_cast<int>(steps), range.min, range.max);
      const float moved = encoding::decode_code(code, scale) - values[at];
      if (!(moved * (2 * slope + moved * curve) < 0)) continue;
      rows.codes[at] = static_cast<std::int16_t>(code);
      values[at] += moved;
      change[static_cast<std::size_t>(r * n + i)] = -moved;
      for (std::int64_t k = 0; k < n; ++k) local[static_cast<std::size_t>(k)] += moved * products[k];
    }
  }
  linalg::gemm_subtract(rows.n, cols_, n, change.data(), n, gram_.data() + begin * cols_, cols_, gradient.data(),
                        cols_);
}

}  // namespace nibble::method::gptq
