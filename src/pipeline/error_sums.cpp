#include "pipeline/error_sums.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace nibble::pipeline {

namespace {

constexpr int kLanes = 16;             // independent sums, for vector instructions
constexpr std::int64_t kBlock = 2048;  // values summed in f32 before the sum moves to f64

// Sums of one block in f32 lanes: at most 128 terms each, so about 1e-6 relative.
ErrorSums sum_block(const float* w, const float* v, std::int64_t n) noexcept {
  float w2[kLanes] = {}, v2[kLanes] = {}, wv[kLanes] = {}, e2[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) {
      const float a = w[i + k];
      const float b = v[i + k];
      w2[k] += a * a;
      v2[k] += b * b;
      wv[k] += a * b;
      e2[k] += (a - b) * (a - b);
    }
  }
  ErrorSums sums;
  for (int k = 0; k < kLanes; ++k) {
    sums.w2 += static_cast<double>(w2[k]);
    sums.v2 += static_cast<double>(v2[k]);
    sums.wv += static_cast<double>(wv[k]);
    sums.e2 += static_cast<double>(e2[k]);
  }
  for (; i < n; ++i) {
    const double a = static_cast<double>(w[i]);
    const double b = static_cast<double>(v[i]);
    sums.add({a * a, b * b, a * b, (a - b) * (a - b)});
  }
  return sums;
}

}  // namespace

double ErrorSums::relative_mse() const {
  if (e2 == 0) return 0;
  return w2 > 0 ? e2 / w2 : std::numeric_limits<double>::infinity();
}

double ErrorSums::snr_db() const {
  const double error = relative_mse();
  return error > 0 ? -10 * std::log10(error) : 0;
}

double ErrorSums::cosine() const {
  if (e2 == 0) return 1;
  const double norm = std::sqrt(w2) * std::sqrt(v2);
  return norm > 0 ? wv / norm : 0;
}

ErrorSums sum_errors(const float* w, const float* v, std::int64_t n) noexcept {
  ErrorSums sums;
  for (std::int64_t i = 0; i < n; i += kBlock) sums.add(sum_block(w + i, v + i, std::min(kBlock, n - i)));
  return sums;
}

std::int64_t find_not_finite(const float* values, std::int64_t n) noexcept {
  constexpr std::uint32_t kInfinity = 0x7F800000u;  // all exponent bits: infinity and NaN, nothing else
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t end = std::min(n, begin + kBlock);
    std::uint32_t bad = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      std::uint32_t bits;
      std::memcpy(&bits, values + i, sizeof bits);
      bad |= (bits & kInfinity) == kInfinity ? 1u : 0u;
    }
    if (bad == 0) continue;
    for (std::int64_t i = begin; i < end; ++i) {
      if (!std::isfinite(values[i])) return i;
    }
  }
  return n;
}

}  // namespace nibble::pipeline
