// Parameters and gradients for tests, made of counter-based numbers as dev/golden/optimizers.py makes them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/exec_context.h"
#include "base/rng.h"
#include "train/parameter.h"

namespace nibble::train {

inline float centered(std::int64_t stream, std::int64_t i) {
  return random_uniform(1, static_cast<std::uint64_t>(stream), static_cast<std::uint64_t>(i)) - 0.5f;
}

inline void set_gradient(Parameter& parameter, std::int64_t step) {
  for (std::int64_t i = 0; i < parameter.size(); ++i) {
    const float u = centered(step, i);
    parameter.gradients()[i] = i % 97 == 0 ? 0.0f : u * u * u;
  }
}

class TestParameters {
 public:
  explicit TestParameters(const std::vector<std::int64_t>& sizes) {
    for (const std::int64_t n : sizes) {
      owned_.push_back(std::make_unique<Parameter>("p" + std::to_string(owned_.size()), 1, n));
      Parameter& parameter = *owned_.back();
      for (std::int64_t i = 0; i < n; ++i) parameter.values()[i] = centered(0, i);
      pointers.push_back(&parameter);
    }
  }
  std::vector<float> values() const {
    std::vector<float> all;
    for (const auto& parameter : owned_) {
      all.insert(all.end(), parameter->values(), parameter->values() + parameter->size());
    }
    return all;
  }
  std::vector<Parameter*> pointers;

 private:
  std::vector<std::unique_ptr<Parameter>> owned_;
};

}  // namespace nibble::train
