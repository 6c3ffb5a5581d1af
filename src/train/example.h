// What a model is trained on: tokens, and which of them it is to predict.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "token/tokenizer.h"

namespace nibble::train {

struct Example {
  std::vector<token::TokenId> tokens;
  std::vector<std::uint8_t> learned;  // 1: the loss counts the prediction of this token; of the first one always 0

  std::int64_t n_learned() const { return std::ranges::count(learned, std::uint8_t{1}); }
};

struct ExampleSet {
  std::vector<Example> examples;
  std::int64_t tokens = 0;          // of all examples
  std::int64_t learned = 0;         // of those
  std::int64_t dropped_tokens = 0;  // cut off or left over
  std::int64_t truncated = 0;       // examples that were longer than the context

  void add(Example example) {
    tokens += static_cast<std::int64_t>(example.tokens.size());
    learned += example.n_learned();
    examples.push_back(std::move(example));
  }
};

}  // namespace nibble::train
