// Chooses the next token from logits.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <utility>
#include <vector>

#include "token/tokenizer.h"

namespace nibble::engine {

// Applied in this order; the defaults switch everything off.
struct SamplerOptions {
  std::vector<std::pair<token::TokenId, float>> logit_bias = {};  // added; minus infinity: never this token
  float repetition_penalty = 1;  // logits of tokens seen lately: divided by it when positive, multiplied when negative
  std::int64_t repetition_window = 64;  // tokens that count as lately; 0: all
  float temperature = 0;                // 0: always the likeliest token
  int top_k = 0;                        // only the k likeliest; 0: all
  float top_p = 1;                      // only the likeliest whose probabilities sum to at least p
  float min_p = 0;                      // only those at least this fraction as likely as the likeliest
  std::uint64_t seed = 0;
};

// The same options and calls give the same tokens.
class Sampler {
 public:
  // Throws Error{kInvalidArgument} for options out of range.
  explicit Sampler(const SamplerOptions& options);

  // Tells of a token that is now part of the text; sample() does so itself for what it returns.
  void accept(token::TokenId id);
  // Throws Error{kFormat} when a logit is not a number. Equal logits: the smaller id wins.
  token::TokenId sample(std::span<const float> logits);

 private:
  struct Candidate {
    float logit;
    token::TokenId id;
  };
  static bool better(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  }
  void penalize(std::vector<Candidate>& candidates) const;
  token::TokenId draw(std::vector<Candidate>& candidates);

  SamplerOptions options_;
  std::deque<token::TokenId> recent_;
  std::uint64_t draws_ = 0;
  std::vector<Candidate> candidates_;
  std::vector<double> weights_;
};

}  // namespace nibble::engine
