// The search of awq for the factors of one link.
#pragma once

#include <cstdint>
#include <vector>

#include "calib/block_walk.h"
#include "model/links.h"
#include "transform/transform.h"

namespace nibble::transform::awq {

// A factor of the grid, 0 <= r < 1 in twentieths, x the mean |input| of a channel and w the mean of its weights, each
// relative to the largest of its group.
enum class Form : std::uint8_t {
  kInputs,            // x^r (Lin et al., 3.2)
  kInputsAndWeights,  // x^r / w^(1 - r) (AutoAWQ)
};

class LinkSearch {
 public:
  // slots: those of the link's consumers that are quantized; all of them in `stage`.
  LinkSearch(BlockScope& scope, const model::Link& link, const calib::Stage& stage, std::vector<std::size_t> slots);

  // The factors, (link.rows()), with which rounding to nearest changes the half of the block least; empty when none is
  // better than leaving all as it is.
  std::vector<float> best(const std::vector<Form>& forms);
  // Those of them or of their square roots that serve the slots' own methods best, where these make up for errors
  // themselves: by the error of some rows on held-out inputs. Empty where neither is clearly better than none.
  std::vector<float> confirmed(const std::vector<float>& scale);

 private:
  struct Moments {
    std::vector<float> train, held_out;  // (channels, channels)
  };
  std::vector<float> outputs();
  double loss(const std::vector<float>& scale);
  void exchange_rounded(std::size_t slot, const std::vector<float>& weights, const std::vector<float>& factors);
  double solved_error(const std::vector<float>& scale, const Moments& moments);
  std::vector<float> by_channel(const std::vector<float>& scale) const;
  std::vector<double> input_means() const;
  std::vector<double> weight_means() const;

  BlockScope& scope_;
  const model::Link& link_;
  const calib::Stage& stage_;
  std::vector<std::size_t> slots_;
  std::vector<std::vector<float>> weights_;  // of the slots
  std::int64_t sequences_ = 0;               // of the sample that candidates are judged by
  std::vector<float> inputs_, expected_;     // of the half on the sample
};

}  // namespace nibble::transform::awq
