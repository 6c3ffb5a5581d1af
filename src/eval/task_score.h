// Runs a model over the items of tasks: what it thinks of each choice behind its context.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/exec_context.h"
#include "eval/score.h"
#include "eval/task_items.h"
#include "token/tokenizer.h"

namespace nibble::eval {

// Choices that stand behind the same tokens. An item is one request, or one per choice where its choices leave
// different room for the context.
struct TaskRequest {
  std::size_t item = 0, first_choice = 0;
  std::vector<token::TokenId> context;                     // at least one token
  std::vector<std::vector<token::TokenId>> continuations;  // at least one token each
};

struct TaskRequests {
  std::vector<TaskRequest> requests;
  std::vector<std::uint8_t> cut;  // per item: 1 where the beginning of its context was left out
};

// Tokens as lm-evaluation-harness takes them: white space at the end of a context belongs to what follows, both are
// encoded together, and the continuation begins behind as many tokens as the context has alone. The model's beginning
// token comes first; an empty context is that token, or the end token where there is none. No model sees more than
// `limit` tokens: what is too long loses the beginning of its context. Throws Error{kFormat} naming the line where a
// continuation has no tokens or too many.
TaskRequests encode_tasks(const token::Tokenizer& tokenizer, std::span<const TaskItem> items, std::int64_t limit);

struct ChoiceScore {
  double log_probability = 0;  // of all its tokens behind the context, nats
  bool greedy = true;          // each of them is the most likely one
};
using ItemScores = std::vector<std::vector<ChoiceScore>>;  // by item and choice

// Requests of like length are one batch whose cache has room for `batch_tokens`; a context is computed once, and its
// keys and values serve all choices. Throws Error{kFormat} naming the model when its logits are not finite.
ItemScores score_tasks(ExecContext& context, std::span<const TaskItem> items, const TaskRequests& requests,
                       const Contender& contender, std::int64_t batch_tokens = 2048);

}  // namespace nibble::eval
