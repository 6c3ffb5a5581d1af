// Examples in a shuffled order that depends on seed and epoch alone, as batches of equally long sequences.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "train/example.h"
#include "train/stream_position.h"

namespace nibble::train {

struct Batch {
  std::int64_t n_sequences = 0;
  std::int64_t length = 0;             // tokens of the longest one
  std::vector<token::TokenId> tokens;  // (n_sequences, length), padded on the right
  std::vector<std::uint8_t> learned;   // likewise; 0 of padding
  std::int64_t n_tokens = 0;           // without padding
  std::int64_t n_learned = 0;
};

struct BatchOptions {
  std::int64_t n_sequences = 1;  // of a batch; the last one of an epoch may have fewer
  std::uint64_t seed = 0;
  bool shuffle = true;
  token::TokenId padding = 0;  // any token will do: nothing that is learned sees it
};

// Endless: epoch after epoch. The next batch is a pure function of options, examples and position.
class BatchStream {
 public:
  // Borrows the examples. Throws Error{kInvalidArgument} without any, or for batches of less than one.
  BatchStream(std::span<const Example> examples, const BatchOptions& options);

  Batch next();
  StreamPosition position() const { return position_; }
  // Throws Error{kInvalidArgument} for a place that is not in an epoch.
  void seek(StreamPosition position);
  std::int64_t batches_per_epoch() const;

 private:
  void set_order();

  std::span<const Example> examples_;
  BatchOptions options_;
  StreamPosition position_;
  std::vector<std::uint32_t> order_;  // of the examples in the position's epoch
};

}  // namespace nibble::train
