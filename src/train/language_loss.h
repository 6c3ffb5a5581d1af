// The loss of a language model on some sequences, with its way back.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "train/decoder_graph.h"

namespace nibble::train {

// Sequences of one length, (count, length), and which of their tokens the loss counts the prediction of; the first of
// a sequence is never predicted.
struct TokenBatch {
  Sequences sequences;
  std::span<const token::TokenId> tokens;
  std::span<const std::uint8_t> learned;

  std::int64_t predictions() const;  // that are counted
};

template <typename Real>
struct LossOptions {
  bool checkpoint = false;       // blocks are computed again on the way back instead of being kept
  std::int64_t part_rows = 512;  // of logits at a time
  GraphWeights<Real>* teacher = nullptr;
  double teacher_share = 1;  // of the divergence from the teacher in the loss; the rest is cross entropy
};

struct LossSums {
  double loss = 0;           // what was gone back from, times the divisor
  double cross_entropy = 0;  // nats, summed over predictions
  double divergence = 0;     // from the teacher, likewise
};

// Adds the gradient of (sum of the losses of all predictions) / divisor to the parameters behind `weights`.
template <typename Real>
LossSums add_gradients(Tape<Real>& tape, DecoderGraph<Real>& graph, GraphWeights<Real>& weights,
                       const TokenBatch& batch, double divisor, const LossOptions<Real>& options);
// The same sums alone.
template <typename Real>
LossSums loss_of(Tape<Real>& tape, DecoderGraph<Real>& graph, GraphWeights<Real>& weights, const TokenBatch& batch,
                 const LossOptions<Real>& options);

}  // namespace nibble::train
