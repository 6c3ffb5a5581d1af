// Runs models over the chunks of a text and scores every prediction, against a reference where there is one.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/exec_context.h"
#include "calib/token_chunks.h"
#include "eval/logits_file.h"
#include "model/model.h"

namespace nibble::eval {

// A model that takes part, with the cache it keeps keys and values in.
struct Contender {
  std::string label;  // for messages
  std::shared_ptr<const model::Model> model;
  model::KvType kv = model::KvType::kF32;
  LogitsFile* save = nullptr;  // takes every scored row of logits
};

// One figure per scored prediction, chunk by chunk in order. The last three are empty without a reference.
struct TokenScores {
  std::vector<double> nll;             // -ln q(next token)
  std::vector<double> kld;             // KL(reference || this), nats
  std::vector<double> delta_p;         // q(next token) - p(next token)
  std::vector<std::uint8_t> same_top;  // 1 where both prefer the same token
};

struct ScoreTable {
  TokenScores reference;  // nll only; empty without a reference
  std::vector<TokenScores> contenders;
};

struct ScoreLimits {
  std::int64_t batch_tokens = 2048;                             // per forward pass
  std::uint64_t logits_limit_bytes = std::uint64_t{256} << 20;  // of the reference, held while the others run
};
// All models run over the same chunks side by side, and logits live only as long as one step. Sums and softmax in f64.
// Throws Error{kInvalidArgument} when vocabularies differ in size, and Error{kFormat} naming the model when its logits
// are not finite.
ScoreTable score_chunks(ExecContext& context, const calib::TokenChunks& chunks, const Contender* reference,
                        std::span<const Contender> contenders, const ScoreLimits& limits = {});

}  // namespace nibble::eval
