// What rendering may cost. A template comes with a model from anywhere: whatever it does, it ends with text or an
// error.
#pragma once

#include <cstdint>

namespace nibble::jinja {

struct Limits {
  std::uint64_t source_bytes = std::uint64_t{4} << 20;
  std::uint64_t work =
      10'000'000;  // evaluated nodes, visited elements, 16 bytes of text read, 256 copied: a second or so
  std::uint64_t memory_bytes = std::uint64_t{64} << 20;  // of texts, lists, objects alive at a time
  int depth = 1000;                                      // nested evaluations, macro calls among them
  int nesting = 200;                                     // of blocks and expressions in the source
  int value_depth = 400;                                 // lists in lists
};

}  // namespace nibble::jinja
