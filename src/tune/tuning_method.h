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
const TuningMethod* find_tuning_method(std::string_view name);

}  // namespace nibble::tune
