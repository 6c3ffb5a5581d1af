// The scale of inputs that share one for good: what is seen of them on a text, and how much of that it is made for.
#pragma once

#include <span>
#include <string_view>

#include "encoding/activation.h"

namespace nibble::calib {

struct Observer {
  std::string_view name;     // "mse"
  std::string_view summary;  // one line
  // The range that `inputs`, all numbers, are rounded within: least <= 0, largest >= 0.
  struct Range {
    float least = 0, largest = 0;
  };
  Range (*range)(const encoding::ActivationInfo& info, std::span<const float> inputs);
};

std::span<const Observer> observers();
const Observer& get_observer(std::string_view name);  // throws Error{kInvalidArgument} naming those there are
// The rounding of a static type. Throws Error{kInvalidArgument} where all inputs are 0 or none is there.
InputRounding observe(const encoding::ActivationInfo& info, const Observer& observer, std::span<const float> inputs);

// The scale of keys or of values in a cache that is rounded so, as compressed-tensors has it (quantization/utils/
// helpers.py: calculate_qparams): codes of both signs span the range, -128 .. 127 or +-448. Throws as observe().
float observe_cache(const encoding::ActivationInfo& info, const Observer& observer, std::span<const float> values);

}  // namespace nibble::calib
