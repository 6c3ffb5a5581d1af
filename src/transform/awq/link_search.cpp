#include "transform/awq/link_search.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "encoding/encoding.h"
#include "method/layer.h"
#include "method/quantize_tensor.h"
#include "transform/fold.h"

namespace nibble::transform::awq {

namespace {

using calib::Share;
using calib::Stage;
using model::BlockModel;
using model::Link;

constexpr int kRatios = 20;                   // of the grid, 0 .. 19 / 20
constexpr std::int64_t kSampleTokens = 2048;  // that candidates are judged by
constexpr std::int64_t kSampleRows = 64;      // of a weight, when its own method judges
// Of such a method's error, what a fold may leave: without outliers it moves by chance, to 0.88 at the best of some
// links; with some it falls to 0.57 to 0.75.
constexpr double kLeft = 0.8;

// The geometric middle of the largest and the smallest becomes 1.
std::vector<float> normalized(std::vector<double> scale) {
  for (double& value : scale) value = std::max(value, 1e-4);
  const auto [low, high] = std::ranges::minmax_element(scale);
  const double middle = std::sqrt(*low * *high);
  std::vector<float> out;
  for (const double value : scale) out.push_back(static_cast<float>(value / middle));
  return out;
}

// That of inputs divided by `factors`.
std::vector<float> divided(std::span<const float> gram, const std::vector<float>& factors) {
  std::vector<float> out(gram.begin(), gram.end());
  for (std::size_t i = 0; i < out.size(); ++i) out[i] /= factors[i / factors.size()] * factors[i % factors.size()];
  return out;
}

// Sum of w gram wᵀ over rows of w.
double power_of(const std::vector<float>& weights, std::int64_t cols, const std::vector<float>& gram) {
  const std::int64_t n = static_cast<std::int64_t>(weights.size()) / cols;
  const std::vector<float> zeros(weights.size());
  double sum = 0;
  for (const double each : method::row_errors(n, cols, weights, zeros, gram)) sum += each;
  return sum;
}

}  // namespace

LinkSearch::LinkSearch(BlockScope& scope, const Link& link, const Stage& stage, std::vector<std::size_t> slots)
    : scope_(scope), link_(link), stage_(stage), slots_(std::move(slots)) {
  const std::int64_t length = scope.walk.sequence_length(), hidden = scope.walk.spec().hidden;
  sequences_ = std::clamp<std::int64_t>(kSampleTokens / length, 1, scope.walk.n_tokens(Share::kTrain) / length);
  inputs_.assign(scope.walk.states(), scope.walk.states() + sequences_ * length * hidden);
  if (stage.half == BlockModel::Half::kFeedForward)
    scope.walk.model().run(scope.context, scope.layer, BlockModel::Half::kAttention, sequences_, length,
                           inputs_.data());
  for (const std::size_t slot : slots_) weights_.push_back(read_weight(scope.source, slot));
  expected_ = outputs();
}

std::vector<float> LinkSearch::best(const std::vector<Form>& forms) {
  const std::vector<double> x = input_means(), w = weight_means();
  std::vector<float> best;
  double least = loss(std::vector<float>(x.size(), 1.0f));
  for (const Form form : forms) {
    for (int k = form == Form::kInputs ? 1 : 0; k < kRatios; ++k) {  // x^0 is no factor at all
      const double ratio = static_cast<double>(k) / kRatios;
      std::vector<double> scale(x.size());
      for (std::size_t i = 0; i < x.size(); ++i)
        scale[i] = std::pow(x[i], ratio) / (form == Form::kInputsAndWeights ? std::pow(w[i], 1 - ratio) + 1e-4 : 1.0);
      const std::vector<float> candidate = normalized(std::move(scale));
      const double error = loss(candidate);
      if (!(error < least)) continue;
      least = error;
      best = candidate;
    }
  }
  for (std::size_t i = 0; i < slots_.size(); ++i) write_weight(scope_.source, slots_[i], weights_[i]);
  scope_.walk.reload(scope_.context, scope_.layer);
  return best;
}

std::vector<float> LinkSearch::confirmed(const std::vector<float>& scale) {
  const bool make_up = std::ranges::any_of(slots_, [&](std::size_t slot) {
    return scope_.targets[slot].method->needs_gram;  // of the second order
  });
  if (!make_up || scale.empty() || stage_.n_matrices > 1) return scale;
  const calib::Wanted gram{.gram = true, .cross = false, .ranges = false};
  const auto of = [&](Share share) {
    const calib::InputMoments moments = scope_.walk.collect(scope_.context, stage_, gram, share);
    const std::span<const float> all = moments.gram(0);
    return std::vector<float>(all.begin(), all.end());
  };
  const Moments moments{of(Share::kTrain),
                        of(scope_.walk.n_tokens(Share::kHeldOut) > 0 ? Share::kHeldOut : Share::kTrain)};
  std::vector<float> root;
  for (const float factor : scale) root.push_back(std::sqrt(factor));
  std::vector<float> best;
  double least = kLeft * solved_error(std::vector<float>(scale.size(), 1.0f), moments);
  for (const std::vector<float>& candidate : {root, scale}) {
    const double error = solved_error(candidate, moments);
    if (!(error < least)) continue;
    least = error;
    best = candidate;
  }
  return best;
}

// What the slots' methods change in their outputs when the inputs are divided by `scale`, relative to these.
double LinkSearch::solved_error(const std::vector<float>& scale, const Moments& moments) {
  scope_.context.check_cancelled();
  const std::vector<float> factors = by_channel(scale);
  const std::vector<float> train = divided(moments.train, factors), judge = divided(moments.held_out, factors);
  double sum = 0;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const SlotTarget& to = scope_.targets[slots_[i]];
    const std::int64_t cols = link_.channels, rows = static_cast<std::int64_t>(weights_[i].size()) / cols,
                       n = std::min(rows, kSampleRows);
    std::vector<float> values;
    for (std::int64_t r = 0; r < n; ++r) {
      const float* row = weights_[i].data() + r * rows / n * cols;
      for (std::int64_t c = 0; c < cols; ++c) values.push_back(row[c] * factors[static_cast<std::size_t>(c)]);
    }
    method::Job job;
    job.tensor = scope_.source.spec().weights[slots_[i]].hf_name;
    job.target = to.target;
    job.shape = {n, cols};
    job.options = scope_.options;
    job.options.effort = std::min(job.options.effort, 1);
    job.statistics.gram = train;
    job.statistics.held_out = judge;
    sum += method::layer_error(scope_.context, *to.method, job, values, judge) / power_of(values, cols, judge);
  }
  return sum;
}

// mean |x| of the consumers' input, over the channels that share a factor: (link.rows()).
std::vector<double> LinkSearch::input_means() const {
  const calib::InputMoments moments =
      scope_.walk.collect(scope_.context, stage_, {.gram = false, .cross = false, .ranges = true}, Share::kTrain);
  std::vector<double> means(static_cast<std::size_t>(link_.rows()));
  for (std::int64_t m = 0; m < stage_.n_matrices; ++m) {
    for (std::int64_t c = 0; c < link_.channels; ++c)
      means[static_cast<std::size_t>(link_.row_of(c))] +=
          static_cast<double>(moments.mean_abs(m)[static_cast<std::size_t>(c)]) /
          static_cast<double>(link_.shared * stage_.n_matrices);
  }
  return means;
}

// Mean over the rows of all consumers of |w| relative to the largest of its group: (link.rows()).
std::vector<double> LinkSearch::weight_means() const {
  std::vector<double> means(static_cast<std::size_t>(link_.rows()));
  double rows = 0;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const std::vector<float>& values = weights_[i];
    const encoding::EncodingInfo& target = *scope_.targets[slots_[i]].target;
    const bool grouped = target.family == encoding::Family::kAffine && target.affine.group > 0;
    const std::int64_t group = grouped ? target.affine.group : std::min<std::int64_t>(128, link_.channels);
    for (std::size_t at = 0; at < values.size(); at += static_cast<std::size_t>(link_.channels)) {
      ++rows;
      for (std::int64_t begin = 0; begin < link_.channels; begin += group) {
        const std::int64_t end = std::min(link_.channels, begin + group);
        float largest = 0;
        for (std::int64_t c = begin; c < end; ++c)
          largest = std::max(largest, std::fabs(values[at + static_cast<std::size_t>(c)]));
        for (std::int64_t c = begin; c < end; ++c)
          means[static_cast<std::size_t>(link_.row_of(c))] +=
              static_cast<double>(std::fabs(values[at + static_cast<std::size_t>(c)]) / (largest + 1e-6f));
      }
    }
  }
  for (double& mean : means) mean /= rows * static_cast<double>(link_.shared);
  return means;
}

// The half of the block on the sample.
std::vector<float> LinkSearch::outputs() {
  std::vector<float> x = inputs_;
  scope_.walk.model().run(scope_.context, scope_.layer, stage_.half, sequences_, scope_.walk.sequence_length(),
                          x.data());
  return x;
}

// Sum of squares by which the half's output differs when the consumers are rounded at that scale.
double LinkSearch::loss(const std::vector<float>& scale) {
  scope_.context.check_cancelled();
  const std::vector<float> factors = by_channel(scale);
  for (std::size_t i = 0; i < slots_.size(); ++i) exchange_rounded(slots_[i], weights_[i], factors);
  scope_.walk.reload(scope_.context, scope_.layer);
  const std::vector<float> x = outputs();
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double difference = static_cast<double>(x[i]) - static_cast<double>(expected_[i]);
    sum += difference * difference;
  }
  return sum;
}

// Q(w s) / s.
void LinkSearch::exchange_rounded(std::size_t slot, const std::vector<float>& weights,
                                  const std::vector<float>& factors) {
  std::vector<float> values(weights.size());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = weights[i] * factors[i % factors.size()];
  const model::WeightSlot& weight = scope_.source.spec().weights[slot];
  method::Job job;
  job.tensor = weight.hf_name;
  job.target = scope_.targets[slot].target;
  job.shape = weight.shape;
  job.options = scope_.options;
  job.options.range = method::RangeRule::kMinMax;
  const Tensor tensor = method::quantize(scope_.context, method::get("rtn"), job, values);
  encoding::decode_rows(tensor.view(), 0, tensor.view().rows(), values.data());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] /= factors[i % factors.size()];
  write_weight(scope_.source, slot, values);
}

std::vector<float> LinkSearch::by_channel(const std::vector<float>& scale) const {
  std::vector<float> factors;
  for (std::int64_t c = 0; c < link_.channels; ++c) factors.push_back(scale[static_cast<std::size_t>(link_.row_of(c))]);
  return factors;
}

}  // namespace nibble::transform::awq
