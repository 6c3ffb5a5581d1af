#include "encoding/block_fit.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdlib>

#include "encoding/block_codec.h"

namespace nibble::encoding {

constexpr std::int8_t kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

int nearest_int(float value) noexcept {
  const auto bits = std::bit_cast<std::int32_t>(value + 0x1.8p23f);
  return (bits & 0x007FFFFF) - 0x00400000;
}

int truncate_int(float value) noexcept { return std::fabs(value) < 0x1p31f ? static_cast<int>(value) : 0; }

float signed_max(const float* x, int n) noexcept {
  float magnitude = 0;
  float value = 0;
  for (int i = 0; i < n; ++i) {
    if (std::fabs(x[i]) > magnitude) {
      magnitude = std::fabs(x[i]);
      value = x[i];
    }
  }
  return value;
}

void choose_signed_max(const BlockGrid& grid, const float* x, BlockFields& fields) noexcept {
  const float d = signed_max(x, grid.block) / static_cast<float>(grid.code_min);
  const float inverse = d != 0 ? 1.0f / d : 0.0f;
  const float shift = static_cast<float>(-grid.code_min) + 0.5f;
  fields.d = round_to_f16(d);
  fields.scale[0] = 1;
  for (int i = 0; i < grid.block; ++i) {
    const auto stored = static_cast<std::int8_t>(truncate_int(x[i] * inverse + shift));
    fields.code[i] = static_cast<std::int8_t>(std::min<int>(stored + grid.code_min, grid.code_max));
  }
}

void choose_min_max(const BlockGrid& grid, const float* x, BlockFields& fields) noexcept {
  float min = FLT_MAX;
  float max = -FLT_MAX;
  for (int i = 0; i < grid.block; ++i) {
    if (x[i] < min) min = x[i];
    if (x[i] > max) max = x[i];
  }
  const float d = (max - min) / static_cast<float>(grid.code_max);
  const float inverse = d != 0 ? 1.0f / d : 0.0f;
  fields.d = round_to_f16(d);
  fields.dmin = -round_to_f16(min);
  fields.scale[0] = 1;
  fields.min[0] = 1;
  for (int i = 0; i < grid.block; ++i) {
    const auto stored = static_cast<std::int8_t>(truncate_int((x[i] - min) * inverse + 0.5f));
    fields.code[i] = static_cast<std::int8_t>(std::min<int>(stored, grid.code_max));
  }
}

namespace {

void round_above(const float* x, int n, float inverse, float min, int levels, std::int8_t* code) {
  for (int i = 0; i < n; ++i) {
    code[i] = static_cast<std::int8_t>(std::clamp(nearest_int(inverse * (x[i] - min)), 0, levels));
  }
}

float weighted_error(const float* x, const float* weight, int n, const std::int8_t* code, float scale, float min,
                     bool absolute) {
  float error = 0;
  for (int i = 0; i < n; ++i) {
    const float difference = scale * static_cast<float>(code[i]) + min - x[i];
    error += weight[i] * (absolute ? std::fabs(difference) : difference * difference);
  }
  return error;
}

// The weighted least-squares line through (code, x), its offset held at or below zero. False when all codes are equal.
bool fit_line(const float* x, const float* weight, int n, const std::int8_t* code, float sum_w, float sum_x,
              float& scale, float& min) {
  float sum_l = 0;
  float sum_l2 = 0;
  float sum_xl = 0;
  for (int i = 0; i < n; ++i) {
    const float l = static_cast<float>(code[i]);
    sum_l += weight[i] * l;
    sum_l2 += weight[i] * l * l;
    sum_xl += weight[i] * l * x[i];
  }
  const float determinant = sum_w * sum_l2 - sum_l * sum_l;
  if (!(determinant > 0)) return false;
  scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
  min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
  if (min > 0) {
    min = 0;
    scale = sum_xl / sum_l2;
  }
  return true;
}

// Scale and (positive) offset of one sub-block: x is about scale * code - offset.
float fit_scale_min(const float* x, const float* weight, int n, int levels, const ScaleMinScan& scan, std::int8_t* code,
                    float& offset) {
  float min = x[0];
  float max = x[0];
  float sum_w = weight[0];
  float sum_x = weight[0] * x[0];
  for (int i = 1; i < n; ++i) {
    if (x[i] < min) min = x[i];
    if (x[i] > max) max = x[i];
    sum_w += weight[i];
    sum_x += weight[i] * x[i];
  }
  if (min > 0) min = 0;
  offset = -min;
  if (max == min) {
    std::fill_n(code, n, std::int8_t{0});
    return 0;
  }
  const float range = max - min;
  const float bottom = min;
  const float inverse = static_cast<float>(levels) / range;
  float best_scale = 1.0f / inverse;
  round_above(x, n, inverse, bottom, levels, code);
  float best_error = weighted_error(x, weight, n, code, best_scale, bottom, scan.absolute);
  float best_min = bottom;

  std::int8_t trial[32];
  for (int step = 0; step <= scan.steps; ++step) {
    // The reference rounds against the best offset so far, and spans the range up to it.
    const float trial_inverse =
        (scan.first + scan.step * static_cast<float>(step) + static_cast<float>(levels)) / (max - best_min);
    round_above(x, n, trial_inverse, best_min, levels, trial);
    float scale;
    float trial_min;
    if (!fit_line(x, weight, n, trial, sum_w, sum_x, scale, trial_min)) continue;
    const float error = weighted_error(x, weight, n, trial, scale, trial_min, scan.absolute);
    if (error < best_error) {
      std::copy_n(trial, n, code);
      best_error = error;
      best_scale = scale;
      best_min = trial_min;
    }
  }
  offset = -best_min;
  return best_scale;
}

void sub_block_weights(const float* x, int n, bool absolute, float* weight) {
  float sum = 0;
  if (!absolute) {
    for (int i = 0; i < n; ++i) sum += x[i] * x[i];
  }
  const float base = absolute ? 0.0f : std::sqrt(sum / static_cast<float>(n));
  for (int i = 0; i < n; ++i) weight[i] = base + std::fabs(x[i]);
}

}  // namespace

void choose_scale_min(const BlockGrid& grid, const ScaleMinScan& scan, const float* x, BlockFields& fields) noexcept {
  const int n_subs = grid.n_subs();
  float scale[16];
  float offset[16];
  float max_scale = 0;
  float max_offset = 0;
  for (int i = 0; i < n_subs; ++i) {
    const float* sub = x + i * grid.sub;
    float weight[32] = {};
    sub_block_weights(sub, grid.sub, scan.absolute, weight);
    scale[i] = fit_scale_min(sub, weight, grid.sub, grid.code_max, scan, fields.code + i * grid.sub, offset[i]);
    if (scale[i] > max_scale) max_scale = scale[i];
    if (offset[i] > max_offset) max_offset = offset[i];
  }
  const float top_scale = static_cast<float>(grid.scale_max);
  const float top_min = static_cast<float>(grid.min_max);
  const float inverse_scale = max_scale > 0 ? top_scale / max_scale : 0.0f;
  const float inverse_offset = max_offset > 0 ? top_min / max_offset : 0.0f;
  fields.d = round_to_f16(max_scale / top_scale);
  fields.dmin = round_to_f16(max_offset / top_min);
  for (int i = 0; i < n_subs; ++i) {
    const auto stored_scale = static_cast<std::uint8_t>(nearest_int(inverse_scale * scale[i]));
    const auto stored_min = static_cast<std::uint8_t>(nearest_int(inverse_offset * offset[i]));
    fields.scale[i] = static_cast<std::int8_t>(std::min<int>(stored_scale, grid.scale_max));
    fields.min[i] = static_cast<std::uint8_t>(std::min<int>(stored_min, grid.min_max));
    const float d = fields.d * static_cast<float>(fields.scale[i]);
    if (d == 0) continue;  // the codes of the search stay
    const float min = fields.dmin * static_cast<float>(fields.min[i]);
    for (int e = i * grid.sub; e < (i + 1) * grid.sub; ++e) {
      fields.code[e] = static_cast<std::int8_t>(std::clamp(nearest_int((x[e] + min) / d), 0, grid.code_max));
    }
  }
}

float sweep_scale(const float* x, int n, int levels, std::int8_t* code) noexcept {
  const float max = signed_max(x, n);
  if (std::fabs(max) < kZeroBlock) {
    std::fill_n(code, n, static_cast<std::int8_t>(-levels));
    return 0;
  }
  const float inverse = static_cast<float>(-levels) / max;
  float sum_xl = 0;
  float sum_l2 = 0;
  for (int i = 0; i < n; ++i) {
    code[i] = static_cast<std::int8_t>(std::clamp(nearest_int(inverse * x[i]), -levels, levels - 1));
    const float l = static_cast<float>(code[i]);
    const float weight = x[i] * x[i];
    sum_xl += weight * x[i] * l;
    sum_l2 += weight * l * l;
  }
  for (int sweep = 0; sweep < 5; ++sweep) {
    bool changed = false;
    for (int i = 0; i < n; ++i) {
      const float weight = x[i] * x[i];
      const float old_l = static_cast<float>(code[i]);
      float rest_xl = sum_xl - weight * x[i] * old_l;
      if (!(rest_xl > 0)) continue;
      float rest_l2 = sum_l2 - weight * old_l * old_l;
      const int candidate = std::clamp(nearest_int(x[i] * rest_l2 / rest_xl), -levels, levels - 1);
      if (candidate == code[i]) continue;
      const float new_l = static_cast<float>(candidate);
      rest_xl += weight * x[i] * new_l;
      rest_l2 += weight * new_l * new_l;
      if (rest_l2 > 0 && rest_xl * rest_xl * sum_l2 > sum_xl * sum_xl * rest_l2) {
        code[i] = static_cast<std::int8_t>(candidate);
        sum_xl = rest_xl;
        sum_l2 = rest_l2;
        changed = true;
      }
    }
    if (!changed) break;
  }
  return sum_l2 > 0 ? sum_xl / sum_l2 : 0.0f;
}

float scan_scale(const float* x, int n, int levels, std::int8_t* code) noexcept {
  const float max = signed_max(x, n);
  if (std::fabs(max) < kZeroBlock) {
    std::fill_n(code, n, static_cast<std::int8_t>(-levels));
    return 0;
  }
  float best_scale = 0;
  float best = 0;
  std::int8_t trial[32];
  const auto attempt = [&](float inverse, bool first) {
    float sum_xl = 0;
    float sum_l2 = 0;
    for (int i = 0; i < n; ++i) {
      trial[i] = static_cast<std::int8_t>(std::clamp(nearest_int(inverse * x[i]), -levels, levels - 1));
      const float l = static_cast<float>(trial[i]);
      const float weight = x[i] * x[i];
      sum_xl += weight * x[i] * l;
      sum_l2 += weight * l * l;
    }
    if (first || (sum_l2 > 0 && sum_xl * sum_xl > best * sum_l2)) {
      std::copy_n(trial, n, code);
      best_scale = sum_l2 != 0 ? sum_xl / sum_l2 : 0.0f;
      best = best_scale * sum_xl;
    }
  };
  attempt(static_cast<float>(-levels) / max, true);
  for (int step = -9; step <= 9; ++step) {
    if (step == 0) continue;
    attempt(-(static_cast<float>(levels) + 0.1f * static_cast<float>(step)) / max, false);
  }
  return best_scale;
}

void reround_symmetric(const BlockGrid& grid, const float* x, BlockFields& fields) noexcept {
  for (int i = 0; i < grid.n_subs(); ++i) {
    const float d = fields.d * static_cast<float>(fields.scale[i]);
    if (d == 0) continue;  // the codes of the search stay
    for (int e = i * grid.sub; e < (i + 1) * grid.sub; ++e) {
      fields.code[e] = static_cast<std::int8_t>(std::clamp(nearest_int(x[e] / d), grid.code_min, grid.code_max));
    }
  }
}

int nearest_iq4_level(float value) noexcept {
  // Levels are whole numbers, so the whole part of the value says between which two it lies.
  static constexpr auto kBelow = [] {
    std::array<std::uint8_t, 240> below{};
    for (int i = 0, level = 0; i < 240; ++i) {
      if (i - 127 >= kIq4Levels[level + 1]) ++level;
      below[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(level);
    }
    return below;
  }();
  if (!(value > -127.0f)) return 0;
  if (value >= 113.0f) return 15;
  const int below = kBelow[std::min<std::size_t>(static_cast<std::size_t>(value + 127.0f), 239)];
  const float low = static_cast<float>(kIq4Levels[below]);
  const float high = static_cast<float>(kIq4Levels[below + 1]);
  return value - low < high - value ? below : below + 1;
}

float level_scale(const float* x, int n, int tries, std::int8_t* code) noexcept {
  const float max = signed_max(x, n);
  const int zero_level = nearest_iq4_level(0);
  if (std::fabs(max) < kZeroBlock) {
    std::fill_n(code, n, static_cast<std::int8_t>(zero_level));
    return 0;
  }
  const float end = static_cast<float>(kIq4Levels[0]);
  float sum_xq;
  float sum_q2;
  std::int8_t trial[32];
  const auto attempt = [&](float inverse) {
    sum_xq = 0;
    sum_q2 = 0;
    for (int i = 0; i < n; ++i) {
      trial[i] = static_cast<std::int8_t>(nearest_iq4_level(inverse * x[i]));
      const float q = static_cast<float>(kIq4Levels[trial[i]]);
      const float weight = x[i] * x[i];
      sum_xq += weight * q * x[i];
      sum_q2 += weight * q * q;
    }
  };
  const float widest = tries > 0 ? -max / end : max / end;
  attempt(1.0f / widest);
  std::copy_n(trial, n, code);
  float scale = sum_q2 > 0 ? sum_xq / sum_q2 : 0.0f;
  float best = scale * sum_xq;
  for (int step = -tries; step <= tries; ++step) {
    attempt((static_cast<float>(step) + end) / max);
    if (sum_q2 > 0 && sum_xq * sum_xq > best * sum_q2) {
      scale = sum_xq / sum_q2;
      best = scale * sum_xq;
    }
  }
  return scale;
}

}  // namespace nibble::encoding
