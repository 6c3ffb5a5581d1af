// Methods that tune a block by gradients behind a solver of tensors, by name.
#pragma once

#include <span>
#include <string_view>

#include "tune/block_tuner.h"

namespace nibble::tune {

struct TuningMethod {
  std::string_view name, summary, source, cost;
  std::string_view start;  // the method that quantizes the tensors of a block first
  BlockTuning tuning;
};

// The table; find() gives null for another name.
std::span<const TuningMethod> tuning_methods();
// Its numbers, with the kernels and the precision that are best on this machine.
BlockTuning tuning_here(const TuningMethod& method, std::uint64_t seed);
const TuningMethod* find_tuning_method(std::string_view name);

}  // namespace nibble::tune
