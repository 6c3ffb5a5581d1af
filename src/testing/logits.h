// What a model makes of some tokens, to compare models that should be the same function.
#pragma once

#include <memory>
#include <vector>

#include "model/source.h"

namespace nibble::testing {

// Logits of 40 arbitrary tokens by the exact path, (40, vocab).
std::vector<float> logits_of(const std::shared_ptr<const model::ModelSource>& source);

struct LogitsError {
  double relative = 0;  // of all: root mean square of the difference over that of what was expected
  double worst = 0;     // of one, against itself and the root mean square of all
};
LogitsError compare_logits(const std::vector<float>& got, const std::vector<float>& expected);

}  // namespace nibble::testing
