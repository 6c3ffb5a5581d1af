#include "model/rope.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

namespace nibble::model {

namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

double plain_frequency(double theta, std::size_t pair, int dims) {
  return 1.0 / std::pow(theta, 2.0 * static_cast<double>(pair) / dims);
}

// Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between interpolated.
double llama3_divisor(const RopeSpec& rope, double frequency) {
  const double wavelength = kTwoPi / frequency;
  const auto original = static_cast<double>(rope.original_context);
  if (wavelength < original / rope.high_freq_factor) return 1.0;
  if (wavelength > original / rope.low_freq_factor) return rope.factor;
  const double smooth = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return 1.0 / ((1 - smooth) / rope.factor + smooth);
}

// YaRN (Peng et al. 2023, section 3.2): pairs that turn more than beta_fast times within the original context keep
// their frequency, those that turn less than beta_slow times are stretched, with a linear ramp between.
class YarnRamp {
 public:
  explicit YarnRamp(const RopeSpec& rope) {
    const auto pair_at = [&rope](double turns) {
      return rope.dims * std::log(static_cast<double>(rope.original_context) / (turns * kTwoPi)) /
             (2 * std::log(rope.theta));
    };
    low_ = pair_at(rope.beta_fast);
    high_ = pair_at(rope.beta_slow);
    if (rope.truncate) {
      low_ = std::floor(low_);
      high_ = std::ceil(high_);
    }
    low_ = std::max(low_, 0.0);
    high_ = std::min(high_, rope.dims - 1.0);
    if (low_ == high_) high_ += 0.001;
  }
  // 0: keep the frequency, 1: stretch it.
  double operator()(std::size_t pair) const {
    return std::clamp((static_cast<double>(pair) - low_) / (high_ - low_), 0.0, 1.0);
  }

 private:
  double low_ = 0;
  double high_ = 0;
};

double attention_factor(const RopeSpec& rope) {
  if (rope.scaling != RopeScaling::kYarn && rope.scaling != RopeScaling::kLongRope) return 1;
  if (rope.attention_factor != 0) return rope.attention_factor;
  if (rope.factor <= 1) return 1;
  if (rope.scaling == RopeScaling::kYarn) return 0.1 * std::log(rope.factor) + 1;
  return std::sqrt(1 + std::log(rope.factor) / std::log(static_cast<double>(rope.original_context)));
}

// NTK-aware: the base grows with the sequence once it is longer than the trained context.
double dynamic_theta(const RopeSpec& rope, std::int64_t length) {
  const auto original = static_cast<double>(rope.original_context);
  const double ratio = std::max(1.0, static_cast<double>(length) / original);
  if (rope.dims <= 2) return rope.theta;
  return rope.theta * std::pow(rope.factor * ratio - (rope.factor - 1), rope.dims / (rope.dims - 2.0));
}

}  // namespace

bool rope_is_fixed(const RopeSpec& rope) {
  return rope.scaling != RopeScaling::kDynamic && rope.scaling != RopeScaling::kLongRope;
}

RopeFrequencies rope_frequencies(const RopeSpec& rope, std::int64_t length) {
  const auto pairs = static_cast<std::size_t>(rope.dims / 2);
  RopeFrequencies out;
  out.inv_freq.resize(pairs);
  out.attention_factor = static_cast<float>(attention_factor(rope));
  const double theta = rope.scaling == RopeScaling::kDynamic ? dynamic_theta(rope, length) : rope.theta;
  const bool stretched = rope.scaling == RopeScaling::kLongRope && length > rope.original_context;
  const std::vector<float>& factors = stretched ? rope.long_factors : rope.factors;
  const YarnRamp ramp(rope);
  for (std::size_t i = 0; i < pairs; ++i) {
    double frequency = plain_frequency(theta, i, rope.dims);
    if (rope.scaling == RopeScaling::kLinear) frequency /= rope.factor;
    if (rope.scaling == RopeScaling::kLlama3) frequency /= llama3_divisor(rope, frequency);
    if (rope.scaling == RopeScaling::kYarn) frequency *= ramp(i) / rope.factor + (1 - ramp(i));
    if (!factors.empty()) frequency /= static_cast<double>(factors[i]);
    out.inv_freq[i] = static_cast<float>(frequency);
  }
  return out;
}

std::vector<float> rope_factors(const RopeSpec& rope) {
  if (!rope.factors.empty()) return rope.factors;
  std::vector<float> factors(static_cast<std::size_t>(rope.dims / 2), 1.0f);
  if (rope.scaling != RopeScaling::kLlama3) return factors;
  for (std::size_t i = 0; i < factors.size(); ++i) {
    factors[i] = static_cast<float>(llama3_divisor(rope, plain_frequency(rope.theta, i, rope.dims)));
  }
  return factors;
}

// Press et al. 2022: 2^(-8 i / n) of n heads; where n is no power of two, those of the power below and then every other
// one of the power above.
std::vector<float> alibi_slopes(const ModelSpec& spec) {
  const int n = spec.blocks[0].n_heads;
  const int below = static_cast<int>(std::bit_floor(static_cast<unsigned>(n)));
  std::vector<float> slopes;
  for (int i = 0; i < n; ++i) {
    const double exponent = i < below ? 8.0 * (i + 1) / below : 4.0 * (2 * (i - below) + 1) / below;
    slopes.push_back(static_cast<float>(std::exp2(-exponent) * spec.alibi_scale));
  }
  return slopes;
}

float query_temperature(const ModelSpec& spec, std::int64_t position) {
  const auto spans = static_cast<float>((position + (spec.temperature_unrotated ? 1 : 0)) / spec.temperature_span);
  return 1.0f + static_cast<float>(spec.temperature_scale) * std::log(1.0f + spans);
}

bool has_query_temperature(const ModelSpec& spec, const BlockSpec& block) {
  return spec.temperature_scale != 0 && (!spec.temperature_unrotated || block.rope == BlockRope::kNone);
}

}  // namespace nibble::model
