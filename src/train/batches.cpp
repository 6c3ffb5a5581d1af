#include "train/batches.h"

#include <limits>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/rng.h"

namespace nibble::train {

BatchStream::BatchStream(std::span<const Example> examples, const BatchOptions& options)
    : examples_(examples), options_(options), order_(examples.size()) {
  if (examples.empty()) fail(ErrorCode::kInvalidArgument, "there are no examples to train on");
  if (examples.size() > std::numeric_limits<std::uint32_t>::max()) {
    fail(ErrorCode::kUnsupported, "{} examples are too many", examples.size());
  }
  if (options.n_sequences < 1) fail(ErrorCode::kInvalidArgument, "batches of {} sequences", options.n_sequences);
  set_order();
}

// Fisher and Yates.
void BatchStream::set_order() {
  std::iota(order_.begin(), order_.end(), std::uint32_t{0});
  if (!options_.shuffle) return;
  for (std::size_t i = order_.size() - 1; i > 0; --i) {
    std::swap(order_[i], order_[random_bits(options_.seed, static_cast<std::uint64_t>(position_.epoch), i) % (i + 1)]);
  }
}

void BatchStream::seek(StreamPosition position) {
  if (position.epoch < 0 || position.index < 0 || position.index >= static_cast<std::int64_t>(examples_.size())) {
    fail(ErrorCode::kInvalidArgument, "there is no example {} in epoch {}: there are {}", position.index,
         position.epoch, examples_.size());
  }
  const bool same_epoch = position.epoch == position_.epoch;
  position_ = position;
  if (!same_epoch) set_order();
}

std::int64_t BatchStream::batches_per_epoch() const {
  return (static_cast<std::int64_t>(examples_.size()) + options_.n_sequences - 1) / options_.n_sequences;
}

Batch BatchStream::next() {
  const auto n_examples = static_cast<std::int64_t>(examples_.size());
  Batch batch;
  batch.n_sequences = std::min(options_.n_sequences, n_examples - position_.index);
  const auto chosen =
      std::span(order_).subspan(static_cast<std::size_t>(position_.index), static_cast<std::size_t>(batch.n_sequences));
  for (const std::uint32_t i : chosen) {
    batch.length = std::max(batch.length, static_cast<std::int64_t>(examples_[i].tokens.size()));
  }
  batch.tokens.assign(static_cast<std::size_t>(batch.n_sequences * batch.length), options_.padding);
  batch.learned.assign(batch.tokens.size(), 0);
  std::ptrdiff_t at = 0;
  for (const std::uint32_t i : chosen) {
    const Example& example = examples_[i];
    std::ranges::copy(example.tokens, batch.tokens.begin() + at);
    std::ranges::copy(example.learned, batch.learned.begin() + at);
    batch.n_tokens += static_cast<std::int64_t>(example.tokens.size());
    batch.n_learned += example.n_learned();
    at += batch.length;
  }
  position_.index += batch.n_sequences;
  if (position_.index == n_examples) {
    position_ = {position_.epoch + 1, 0};
    set_order();
  }
  return batch;
}

}  // namespace nibble::train
