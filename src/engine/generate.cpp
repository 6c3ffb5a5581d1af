#include "engine/generate.h"

#include <algorithm>
#include <chrono>

namespace nibble::engine {

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

std::vector<token::TokenId> end_tokens(const token::Vocabulary& vocabulary) {
  std::vector<token::TokenId> ids;
  for (const int id : {vocabulary.eos, vocabulary.eot}) {
    if (id >= 0 && std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
  }
  return ids;
}

Generated generate(ExecContext& context, Session& session, Sampler& sampler, std::span<const token::TokenId> prompt,
                   const GenerateOptions& options, const std::function<bool(token::TokenId)>& on_token) {
  Generated out;
  auto start = std::chrono::steady_clock::now();
  std::span<const float> logits = session.feed(context, prompt);
  out.prompt_seconds = seconds_since(start);
  for (const token::TokenId id : prompt) sampler.accept(id);
  start = std::chrono::steady_clock::now();
  for (;;) {
    if (static_cast<std::int64_t>(out.tokens.size()) >= options.max_tokens) {
      out.reason = StopReason::kMaxTokens;
      break;
    }
    const token::TokenId id = sampler.sample(logits);
    if (std::ranges::find(options.stop_tokens, id) != options.stop_tokens.end()) {
      out.reason = StopReason::kStopToken;
      break;
    }
    out.tokens.push_back(id);
    if (on_token && !on_token(id)) {
      out.reason = StopReason::kCallback;
      break;
    }
    if (static_cast<std::int64_t>(out.tokens.size()) >= options.max_tokens) continue;
    if (session.position() == session.context()) {
      out.reason = StopReason::kContextFull;
      break;
    }
    logits = session.feed(context, {&id, 1});
  }
  out.decode_seconds = seconds_since(start);
  return out;
}

}  // namespace nibble::engine
