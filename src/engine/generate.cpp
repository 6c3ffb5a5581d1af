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
  const auto add = [&](int id) {
    if (id >= 0 && std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
  };
  add(vocabulary.eos);
  add(vocabulary.eot);
  for (const int id : vocabulary.ends) add(id);
  // Files that name one end only often have more.
  constexpr std::string_view kNames[] = {"<|endoftext|>", "<|end_of_text|>", "<|eom_id|>", "<|return|>", "<|call|>"};
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const bool control = vocabulary.types[id] == token::TokenType::kControl;
    if (control && std::ranges::find(kNames, vocabulary.tokens[id]) != std::end(kNames)) add(static_cast<int>(id));
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
