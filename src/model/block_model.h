// A model block by block, over hidden states that the caller holds: what calibration walks through while it exchanges
// weights.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "model/model.h"

namespace nibble::model {

struct Decoder;

class BlockModel {
 public:
  // All math in f32, weights read from `source` whenever they are needed. Errors as Model::load().
  BlockModel(ExecContext& context, std::shared_ptr<const ModelSource> source, Isa isa);
  ~BlockModel();
  const ModelSpec& spec() const;

  // Must follow every exchange of a weight of that block, before it runs again.
  void reload(ExecContext& context, int layer);

  // Sequences of `length` tokens each, one after the other; x: (tokens.size(), hidden). Throws Error{kInvalidArgument}
  // for a token outside the vocabulary or a length beyond the model's positions.
  void embed(ExecContext& context, std::span<const token::TokenId> tokens, std::int64_t length, float* x) const;
  // A half of a block, or both, in place on such states of `n_sequences`. An observer that has seen what it wanted may
  // throw Enough: the states it was called for stay as they are. The halves of a parallel block read the same input: it
  // has only both.
  struct Enough {};
  enum class Half : std::uint8_t { kAttention, kFeedForward, kBoth };
  void run(ExecContext& context, int layer, Half half, std::int64_t n_sequences, std::int64_t length, float* x,
           ForwardObserver* observer = nullptr) const;
  // Shows the observer what states after the last block are to the head.
  void show_head_input(ExecContext& context, std::int64_t n_sequences, std::int64_t length, const float* x,
                       ForwardObserver& observer) const;
  // What the head makes of them: sink(first token, n, logits (n, vocab)), some tokens at a time, in order of tokens
  // within a sequence. The pool is idle, so the sink may use it.
  using TokenSink = std::function<void(std::int64_t first, std::int64_t n, const float* logits)>;
  void logits(ExecContext& context, std::int64_t n_sequences, std::int64_t length, const float* x,
              const TokenSink& sink) const;

 private:
  std::unique_ptr<Decoder> decoder_;
  LoadOptions options_;
};

}  // namespace nibble::model
