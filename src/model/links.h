// Which weights may be scaled against each other without a change of what the model computes: where a diagonal can
// stand between two operations, divided out of the one and multiplied into the other.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model_spec.h"

namespace nibble::model {

// Consumers multiply the same input; dividing channel c of that input by s[c] and multiplying column c of each of them
// by s[c] changes nothing. The division is folded into the producer: into the weight (and bias) of a norm, or into rows
// of a linear.
struct Link {
  enum class Form : std::uint8_t {
    kNorm,  // weight / s; where norms scale by 1 + weight: (1 + weight) / s - 1
    kRows,  // row channel_row(c) of the linear, and its bias, / s
  };
  Form form{};
  Role producer{};
  std::vector<Role> consumers;
  std::int64_t channels = 0;  // columns of the consumers
  // kRows: the producer's rows begin at `first_row` of its tensor; `heads` groups of `shared` channels' heads use the
  // same rows, those of a head `width` (queries of a group share their value head); width 0: one row per channel.
  std::int64_t first_row = 0;
  std::int64_t width = 0, shared = 1;

  std::int64_t rows() const { return channels / shared; }  // of the producer that take part: factors that are free
  std::int64_t row_of(std::int64_t channel) const {
    return width == 0 ? channel : channel / (width * shared) * width + channel % width;
  }
};

// Those of a block. Left out are ones through anything that is not linear in the scale (activations without a gate,
// clamped gates), those of experts' inner channels, of latents, and of norms of sums.
std::vector<Link> block_links(const ModelSpec& spec, int layer);

}  // namespace nibble::model
