// smoothquant: what is large in the inputs goes over into the weights, channel by channel, so that both can be rounded
// (Xiao et al., arXiv 2211.10438, eq. 4): s = max|X|^a / max|W|^(1 - a), X / s folded into the operation before, W s.
// "auto" takes for each link the a in tenths, or none, that changes the outputs of its linears least.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>

#include "base/error.h"
#include "encoding/activation.h"
#include "linalg/gemm.h"
#include "method/quantize_tensor.h"
#include "transform/fold.h"

namespace nibble::transform::smoothquant {

namespace {

using calib::Share;
using calib::Stage;
using model::Link;

constexpr double kAlpha = 0.5;
constexpr double kLeastFactor = 1e-5;         // as the reference clamps
constexpr int kSteps = 10;                    // of a, from 0 to 1
constexpr std::int64_t kSampleTokens = 1024;  // that candidates are judged by
constexpr std::int64_t kSampleRows = 128;     // of a weight, likewise

struct Settings {
  double alpha = kAlpha;
  bool search = false;
};

Settings read_settings(std::string_view text) {
  Settings settings;
  if (text.empty()) return settings;
  if (text.starts_with("alpha=")) text.remove_prefix(6);
  if (text == "auto") return {kAlpha, true};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), settings.alpha);
  if (error != std::errc() || end != text.data() + text.size() || !(settings.alpha >= 0 && settings.alpha <= 1))
    fail(ErrorCode::kInvalidArgument, "transform 'smoothquant:{}': alpha is a number from 0 to 1, or 'auto'", text);
  return settings;
}

// One link with the weights of its consumers.
class Smoothing {
 public:
  Smoothing(BlockScope& scope, const Link& link, const Stage& stage, std::vector<std::size_t> slots)
      : scope_(scope), link_(link), stage_(stage), slots_(std::move(slots)) {
    const calib::InputMoments moments =
        scope.walk.collect(scope.context, stage, {.gram = false, .cross = false, .ranges = true}, Share::kTrain);
    inputs_.assign(static_cast<std::size_t>(link.rows()), 0.0f);
    weights_max_ = inputs_;
    for (std::int64_t m = 0; m < stage.n_matrices; ++m) {
      for (std::int64_t c = 0; c < link.channels; ++c)
        raise(inputs_, c, moments.max_abs(m)[static_cast<std::size_t>(c)]);
    }
    for (const std::size_t slot : slots_) {
      weights_.push_back(read_weight(scope.source, slot));
      for (std::size_t i = 0; i < weights_.back().size(); ++i)
        raise(weights_max_, static_cast<std::int64_t>(i) % link.channels, std::fabs(weights_.back()[i]));
    }
  }

  std::vector<float> factors(double alpha) const {
    std::vector<float> out;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const double x = static_cast<double>(inputs_[i]), w = static_cast<double>(weights_max_[i]);
      const bool dead = x == 0 || w == 0;
      out.push_back(dead ? 1.0f
                         : static_cast<float>(std::max(std::pow(x, alpha) / std::pow(w, 1 - alpha), kLeastFactor)));
    }
    return out;
  }

  // Empty: best left alone.
  std::vector<float> best() {
    if (stage_.n_matrices > 1) return factors(kAlpha);  // experts have inputs of their own
    sample_ = scope_.walk.sample(scope_.context, stage_, kSampleTokens);
    std::vector<float> best;
    double least = error_with(std::vector<float>(inputs_.size(), 1.0f));
    for (int step = 0; step <= kSteps; ++step) {
      const std::vector<float> candidate = factors(static_cast<double>(step) / kSteps);
      const double error = error_with(candidate);
      if (!(error < least)) continue;
      least = error;
      best = candidate;
    }
    return best;
  }

 private:
  void raise(std::vector<float>& largest, std::int64_t channel, float value) const {
    float& at = largest[static_cast<std::size_t>(link_.row_of(channel))];
    at = std::max(at, value);
  }

  // What rounding both sides changes in the outputs of some rows, relative to these.
  double error_with(const std::vector<float>& scale) {
    scope_.context.check_cancelled();
    double sum = 0;
    for (std::size_t i = 0; i < slots_.size(); ++i) sum += error_of(i, scale);
    return sum;
  }

  double error_of(std::size_t index, const std::vector<float>& scale) {
    const std::int64_t cols = link_.channels, n_tokens = static_cast<std::int64_t>(sample_.size()) / cols;
    const std::vector<float>& weights = weights_[index];
    const std::int64_t rows = static_cast<std::int64_t>(weights.size()) / cols, n = std::min(rows, kSampleRows);
    std::vector<float> plain, folded;
    for (std::int64_t r = 0; r < n; ++r) {
      const float* row = weights.data() + r * rows / n * cols;
      for (std::int64_t c = 0; c < cols; ++c) {
        plain.push_back(row[c]);
        folded.push_back(row[c] * scale[static_cast<std::size_t>(link_.row_of(c))]);
      }
    }
    round_weights(slots_[index], n, folded);
    const std::vector<float> inputs = rounded_inputs(slots_[index], scale);
    std::vector<float> expected(static_cast<std::size_t>(n_tokens * n)), got(expected.size());
    linalg::gemm_nt(n_tokens, n, cols, sample_.data(), cols, plain.data(), cols, expected.data(), n);
    linalg::gemm_nt(n_tokens, n, cols, inputs.data(), cols, folded.data(), cols, got.data(), n);
    double error = 0, power = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double difference = static_cast<double>(got[i]) - static_cast<double>(expected[i]);
      error += difference * difference;
      power += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
    }
    return power > 0 ? error / power : 0;
  }

  void round_weights(std::size_t slot, std::int64_t n, std::vector<float>& values) {
    method::Job job;
    job.tensor = scope_.source.spec().weights[slot].hf_name;
    job.target = scope_.targets[slot].target;
    job.shape = {n, link_.channels};
    job.options = scope_.options;
    job.options.range = method::RangeRule::kMinMax;
    const Tensor tensor = method::quantize(scope_.context, method::get("rtn"), job, values);
    encoding::decode_rows(tensor.view(), 0, n, values.data());
  }

  std::vector<float> rounded_inputs(std::size_t slot, const std::vector<float>& scale) const {
    std::vector<float> x = sample_;
    const auto cols = static_cast<std::size_t>(link_.channels);
    for (std::size_t i = 0; i < x.size(); ++i)
      x[i] /= scale[static_cast<std::size_t>(link_.row_of(static_cast<std::int64_t>(i % cols)))];
    const encoding::ActivationInfo* info = scope_.targets[slot].inputs;
    if (info == nullptr) return x;
    InputRounding rounding{info};
    if (info->is_static()) {
      const auto [least, largest] = std::ranges::minmax_element(x);
      const encoding::InputScale at = encoding::input_scale(*info, std::min(0.0f, *least), std::max(0.0f, *largest));
      rounding = {info, at.scale, at.zero};
    }
    for (std::size_t begin = 0; begin < x.size(); begin += cols)
      encoding::round_inputs(rounding, x.data() + begin, link_.channels, x.data() + begin);
    return x;
  }

  BlockScope& scope_;
  const Link& link_;
  const Stage& stage_;
  std::vector<std::size_t> slots_;
  std::vector<std::vector<float>> weights_;  // of the slots
  std::vector<float> inputs_, weights_max_;  // largest magnitudes, (link.rows())
  std::vector<float> sample_;                // inputs, (tokens, channels)
};

void apply(BlockScope& scope) {
  const Settings settings = read_settings(scope.settings);
  fold_links(scope, [&](const Link& link, const Stage& stage, std::vector<std::size_t> slots) {
    Smoothing smoothing(scope, link, stage, std::move(slots));
    return settings.search ? smoothing.best() : smoothing.factors(settings.alpha);
  });
}

}  // namespace

const Transform& entry() {
  static const Transform transform = {
      .name = "smoothquant",
      .summary = "what is large in the inputs moves into the weights: smoothquant[:alpha=A|auto], A 0.5 if not said",
      .origin = "Xiao et al., arXiv 2211.10438",
      .apply = apply,
      .check = [](std::string_view settings) { read_settings(settings); },
  };
  return transform;
}

}  // namespace nibble::transform::smoothquant
