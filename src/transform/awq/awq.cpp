// awq: channels that carry much are made larger in the weights and smaller in what flows, so that rounding costs them
// less (Lin et al., arXiv 2306.00978, 3.2; auto_scale of its reference, and the form of AutoAWQ that looks at the
// weights, too).
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "encoding/encoding.h"
#include "method/quantize_tensor.h"
#include "transform/fold.h"

namespace nibble::transform::awq {

namespace {

using calib::Stage;
using model::BlockModel;
using model::Link;

constexpr int kRatios = 20;                   // of the grid, 0 .. 19 / 20
constexpr std::int64_t kSampleTokens = 2048;  // that candidates are judged by

// mean |x| of the consumers' input, over the channels that share a factor: (link.rows()).
std::vector<double> input_means(BlockScope& scope, const Link& link, const Stage& stage) {
  const calib::InputMoments moments =
      scope.walk.collect(scope.context, stage, {.gram = false, .cross = false, .ranges = true}, calib::Share::kTrain);
  std::vector<double> means(static_cast<std::size_t>(link.rows()));
  for (std::int64_t m = 0; m < stage.n_matrices; ++m) {
    for (std::int64_t c = 0; c < link.channels; ++c)
      means[static_cast<std::size_t>(link.row_of(c))] +=
          static_cast<double>(moments.mean_abs(m)[static_cast<std::size_t>(c)]) /
          static_cast<double>(link.shared * stage.n_matrices);
  }
  return means;
}

// Mean over the rows of all consumers of |w| relative to the largest of its group: (link.rows()).
std::vector<double> weight_means(const BlockScope& scope, const Link& link, const std::vector<std::size_t>& slots) {
  std::vector<double> means(static_cast<std::size_t>(link.rows()));
  double rows = 0;
  for (const std::size_t slot : slots) {
    const std::vector<float> values = read_weight(scope.source, slot);
    const encoding::EncodingInfo& target = *scope.targets[slot].target;
    const bool grouped = target.family == encoding::Family::kAffine && target.affine.group > 0;
    const std::int64_t group = grouped ? target.affine.group : std::min<std::int64_t>(128, link.channels);
    for (std::size_t at = 0; at < values.size(); at += static_cast<std::size_t>(link.channels)) {
      ++rows;
      for (std::int64_t begin = 0; begin < link.channels; begin += group) {
        const std::int64_t end = std::min(link.channels, begin + group);
        float largest = 0;
        for (std::int64_t c = begin; c < end; ++c)
          largest = std::max(largest, std::fabs(values[at + static_cast<std::size_t>(c)]));
        for (std::int64_t c = begin; c < end; ++c)
          means[static_cast<std::size_t>(link.row_of(c))] +=
              static_cast<double>(std::fabs(values[at + static_cast<std::size_t>(c)]) / (largest + 1e-6f));
      }
    }
  }
  for (double& mean : means) mean /= rows * static_cast<double>(link.shared);
  return means;
}

// The geometric middle of the largest and the smallest becomes 1.
std::vector<float> normalized(std::vector<double> scale) {
  for (double& value : scale) value = std::max(value, 1e-4);
  const auto [low, high] = std::ranges::minmax_element(scale);
  const double middle = std::sqrt(*low * *high);
  std::vector<float> out;
  for (const double value : scale) out.push_back(static_cast<float>(value / middle));
  return out;
}

class LinkSearch {
 public:
  LinkSearch(BlockScope& scope, const Link& link, const Stage& stage, std::vector<std::size_t> slots)
      : scope_(scope), link_(link), stage_(stage), slots_(std::move(slots)) {
    const std::int64_t length = scope.walk.sequence_length(), hidden = scope.walk.spec().hidden;
    sequences_ =
        std::clamp<std::int64_t>(kSampleTokens / length, 1, scope.walk.n_tokens(calib::Share::kTrain) / length);
    inputs_.assign(scope.walk.states(), scope.walk.states() + sequences_ * length * hidden);
    if (stage.half == BlockModel::Half::kFeedForward)
      scope.walk.model().run(scope.context, scope.layer, BlockModel::Half::kAttention, sequences_, length,
                             inputs_.data());
    for (const std::size_t slot : slots_) weights_.push_back(read_weight(scope.source, slot));
    expected_ = outputs();
  }

  // The best factors, (link.rows()); empty when none is better than leaving all as it is.
  std::vector<float> best() {
    const std::vector<double> x = input_means(scope_, link_, stage_), w = weight_means(scope_, link_, slots_);
    std::vector<float> best;
    double least = loss(std::vector<float>(x.size(), 1.0f));
    for (const bool with_weights : {false, true}) {
      for (int k = with_weights ? 0 : 1; k < kRatios; ++k) {
        const double ratio = static_cast<double>(k) / kRatios;
        std::vector<double> scale(x.size());
        for (std::size_t i = 0; i < x.size(); ++i)
          scale[i] = std::pow(x[i], ratio) / (with_weights ? std::pow(w[i], 1 - ratio) + 1e-4 : 1.0);
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

 private:
  // The half of the block on the sample.
  std::vector<float> outputs() {
    std::vector<float> x = inputs_;
    scope_.walk.model().run(scope_.context, scope_.layer, stage_.half, sequences_, scope_.walk.sequence_length(),
                            x.data());
    return x;
  }

  // Sum of squares by which the half's output differs when the consumers are rounded at that scale.
  double loss(const std::vector<float>& scale) {
    scope_.context.check_cancelled();
    for (std::size_t i = 0; i < slots_.size(); ++i) exchange_rounded(slots_[i], weights_[i], scale);
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
  void exchange_rounded(std::size_t slot, const std::vector<float>& weights, const std::vector<float>& scale) {
    std::vector<float> values(weights.size());
    const auto factor = [&](std::size_t i) {
      return scale[static_cast<std::size_t>(link_.row_of(static_cast<std::int64_t>(i) % link_.channels))];
    };
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = weights[i] * factor(i);
    const model::WeightSlot& weight = scope_.source.spec().weights[slot];
    method::Job job;
    job.tensor = weight.hf_name;
    job.target = scope_.targets[slot].target;
    job.shape = weight.shape;
    job.options = scope_.options;
    job.options.range = method::RangeRule::kMinMax;
    const Tensor tensor = method::quantize(scope_.context, method::get("rtn"), job, values);
    encoding::decode_rows(tensor.view(), 0, tensor.view().rows(), values.data());
    for (std::size_t i = 0; i < values.size(); ++i) values[i] /= factor(i);
    write_weight(scope_.source, slot, values);
  }

  BlockScope& scope_;
  const Link& link_;
  const Stage& stage_;
  std::vector<std::size_t> slots_;  // of the consumers that are quantized
  std::vector<std::vector<float>> weights_;
  std::int64_t sequences_ = 0;
  std::vector<float> inputs_, expected_;
};

void apply(BlockScope& scope) {
  const std::vector<Stage> stages = scope.walk.stages(scope.context, scope.layer);
  for (const Link& link : model::block_links(scope.source.spec(), scope.layer)) {
    std::vector<std::size_t> slots;
    for (const model::Role role : link.consumers) {
      const std::size_t slot = slot_index(scope.source.spec(), role, scope.layer);
      if (scope.targets[slot].target != nullptr) slots.push_back(slot);
    }
    const auto stage = std::ranges::find_if(stages, [&](const Stage& each) {
      return std::ranges::find(link.consumers, each.roles[0]) != link.consumers.end();
    });
    if (slots.empty() || stage == stages.end()) continue;
    std::vector<float> scale = LinkSearch(scope, link, *stage, std::move(slots)).best();
    if (scale.empty()) continue;
    fold(scope, link, scale);
    scope.walk.reload(scope.context, scope.layer);
  }
}

}  // namespace

const Transform& entry() {
  static const Transform transform = {
      .name = "awq",
      .summary = "channels scaled by what flows through them, folded into the operation before",
      .origin = "Lin et al., arXiv 2306.00978",
      .apply = apply,
  };
  return transform;
}

}  // namespace nibble::transform::awq
