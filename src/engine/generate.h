// Continues a text token by token.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "engine/sampler.h"
#include "engine/session.h"

namespace nibble::engine {

struct GenerateOptions {
  std::int64_t max_tokens = 128;
  std::vector<token::TokenId> stop_tokens = {};  // end the text and are not part of it
};

enum class StopReason : std::uint8_t {
  kMaxTokens,
  kStopToken,
  kContextFull,
  kCallback,  // on_token asked to stop
};

struct Generated {
  std::vector<token::TokenId> tokens;
  StopReason reason{};
  double prompt_seconds = 0;
  double decode_seconds = 0;  // of the tokens after the first
};

// The tokens that end a text of this vocabulary: end of sequence, end of turn and what else the files or their usual
// names say.
std::vector<token::TokenId> end_tokens(const token::Vocabulary& vocabulary);

// Feeds the prompt, then samples. on_token sees each token as soon as it is chosen and says whether to go on. Throws
// Error{kInvalidArgument} when the prompt is empty or does not fit the context; Error{kCancelled}.
Generated generate(ExecContext& context, Session& session, Sampler& sampler, std::span<const token::TokenId> prompt,
                   const GenerateOptions& options, const std::function<bool(token::TokenId)>& on_token = {});

}  // namespace nibble::engine
