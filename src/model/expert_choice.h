// Which experts a token takes, and how much each counts.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "model/model_spec.h"

namespace nibble::model {

// Of one token after the other. Of equal scores the first expert wins.
class ExpertChoice {
 public:
  // bias: of each expert, for the choice alone; empty: none. Both must outlive this.
  ExpertChoice(const ExpertSpec& spec, std::span<const float> bias)
      : spec_(spec), bias_(bias), scores_(static_cast<std::size_t>(spec.count)), order_(scores_.size()) {}

  // The `used` experts in ascending order, until the next call; score: (count).
  std::span<const std::size_t> choose(const float* score);
  void weigh(const float* score, std::span<const std::size_t> chosen, float* weights) const;

 private:
  // Scores of the groups that are not among the best become the lowest.
  void leave_out_groups();

  const ExpertSpec& spec_;
  std::span<const float> bias_;
  std::vector<double> scores_;
  std::vector<std::size_t> order_;
};

}  // namespace nibble::model
