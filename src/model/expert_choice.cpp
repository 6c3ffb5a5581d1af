#include "model/expert_choice.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

namespace nibble::model {

namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

std::span<const std::size_t> ExpertChoice::choose(const float* score) {
  for (std::size_t i = 0; i < scores_.size(); ++i) {
    scores_[i] =
        spec_.scoring == Scoring::kSigmoid ? sigmoid(static_cast<double>(score[i])) : static_cast<double>(score[i]);
    if (!bias_.empty()) scores_[i] += static_cast<double>(bias_[i]);
    if (std::isnan(scores_[i])) scores_[i] = -std::numeric_limits<double>::infinity();  // the order must be one
  }
  std::iota(order_.begin(), order_.end(), std::size_t{0});
  if (spec_.groups_used < spec_.groups) leave_out_groups();
  const auto end = order_.begin() + spec_.used;
  std::partial_sort(order_.begin(), end, order_.end(), [this](std::size_t a, std::size_t b) {
    return scores_[a] > scores_[b] || (scores_[a] == scores_[b] && a < b);
  });
  std::sort(order_.begin(), end);
  return {order_.data(), static_cast<std::size_t>(spec_.used)};
}

void ExpertChoice::weigh(const float* score, std::span<const std::size_t> chosen, float* weights) const {
  const auto most = static_cast<double>(*std::max_element(score, score + spec_.count));
  const auto share = [&](std::size_t expert) {
    const auto x = static_cast<double>(score[expert]);
    return spec_.scoring == Scoring::kSigmoid ? sigmoid(x) : std::exp(x - most);
  };
  double sum = spec_.scoring == Scoring::kSigmoid ? 1 : 0;
  if (spec_.renormalize) {
    sum = 0;
    for (const std::size_t expert : chosen) sum += share(expert);
  } else if (spec_.scoring == Scoring::kSoftmax) {
    for (std::size_t expert = 0; expert < scores_.size(); ++expert) sum += share(expert);
  }
  for (std::size_t i = 0; i < chosen.size(); ++i) weights[i] = static_cast<float>(share(chosen[i]) / sum * spec_.scale);
}

void ExpertChoice::leave_out_groups() {
  const std::size_t n = scores_.size() / static_cast<std::size_t>(spec_.groups);
  std::vector<std::pair<double, std::size_t>> groups;
  for (std::size_t begin = 0; begin < scores_.size(); begin += n) {
    std::vector<double> group(scores_.begin() + static_cast<std::ptrdiff_t>(begin),
                              scores_.begin() + static_cast<std::ptrdiff_t>(begin + n));
    std::ranges::sort(group, std::greater());
    const bool two = spec_.scoring == Scoring::kSigmoid && n > 1;
    groups.emplace_back(two ? group[0] + group[1] : group[0], begin);
  }
  std::ranges::stable_sort(groups, std::greater(), &std::pair<double, std::size_t>::first);
  for (std::size_t i = static_cast<std::size_t>(spec_.groups_used); i < groups.size(); ++i)
    std::fill_n(scores_.begin() + static_cast<std::ptrdiff_t>(groups[i].second), n,
                -std::numeric_limits<double>::infinity());
}

}  // namespace nibble::model
