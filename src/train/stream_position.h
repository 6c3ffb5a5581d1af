// Where a run stands in its stream of examples.
#pragma once

#include <cstdint>

namespace nibble::train {

struct StreamPosition {
  std::int64_t epoch = 0;
  std::int64_t index = 0;  // in the order of that epoch, of the next example
  bool operator==(const StreamPosition&) const = default;
};

}  // namespace nibble::train
