// How far a model whose weights are being exchanged is from what it was: KL divergence of its predictions on a text,
// from the hidden states before the exchange on.
#pragma once

#include <cstdint>
#include <vector>

#include "base/exec_context.h"
#include "base/spill_buffer.h"
#include "calib/token_chunks.h"
#include "eval/token_score.h"
#include "model/block_model.h"

namespace nibble::pipeline {

// Holds the hidden states of the text before the place in the model it stands at, first the embedding, and the logits
// of the unchanged model.
class DivergenceWalk {
 public:
  // `model` as it is to be compared with.
  DivergenceWalk(ExecContext& context, const model::BlockModel& model, const calib::TokenChunks& chunks,
                 std::uint64_t memory_limit);

  void pass(ExecContext& context, const model::BlockModel& model, int layer, model::BlockModel::Half half);
  // Mean KL divergence, nats, of the model as it is now, whose weights before `half` of block `layer`, where the walk
  // stands, are unchanged.
  double divergence(ExecContext& context, const model::BlockModel& model, int layer, model::BlockModel::Half half);
  // Of another form of the model, from the embedding on.
  double divergence_of(ExecContext& context, const model::BlockModel& other);

 private:
  void run_on(ExecContext& context, const model::BlockModel& model, int layer, model::BlockModel::Half half);
  double compare(ExecContext& context, const model::BlockModel& model);

  std::vector<token::TokenId> tokens_;
  std::int64_t length_ = 0, n_sequences_ = 0, vocab_ = 0;
  SpillBuffer states_, work_;                  // (tokens, hidden)
  SpillBuffer logits_;                         // (tokens, vocab), of the unchanged model
  std::vector<eval::LogitSummary> summaries_;  // of those
};

}  // namespace nibble::pipeline
