#include "engine/chat.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace nibble::engine {

namespace {

json::Value message(std::string_view role, std::string content) {
  return json::Object{{"role", role}, {"content", std::move(content)}};
}

std::tm local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm out{};
  localtime_r(&now, &out);
  return out;
}

}  // namespace

json::Value template_variables(const token::Vocabulary& vocabulary, json::Array messages, const json::Object& others) {
  json::Value variables = json::Object{
      {"messages", std::move(messages)}, {"tools", nullptr}, {"documents", nullptr}, {"add_generation_prompt", true}};
  const std::pair<const char*, int> specials[] = {{"bos_token", vocabulary.bos},
                                                  {"eos_token", vocabulary.eos},
                                                  {"unk_token", vocabulary.unk},
                                                  {"pad_token", vocabulary.pad}};
  for (const auto& [name, id] : specials) {
    if (id >= 0) variables.set(name, vocabulary.tokens.at(static_cast<std::size_t>(id)));
  }
  for (const auto& [name, value] : others) variables.set(name, value);
  return variables;
}

Chat::Chat(std::shared_ptr<const model::Model> model, const SessionOptions& session, Sampler sampler,
           const token::Tokenizer& tokenizer, jinja::Template chat_template, ChatOptions options)
    : session_(std::move(model), session),
      sampler_(std::move(sampler)),
      tokenizer_(tokenizer),
      template_(std::move(chat_template)),
      options_(std::move(options)) {
  reset();
}

// The cache stays: the next conversation may begin as this one did.
void Chat::reset() {
  messages_.clear();
  if (!options_.system.empty()) messages_.push_back(message("system", options_.system));
}

std::vector<token::TokenId> Chat::encoded() const {
  const json::Value variables = template_variables(tokenizer_.vocabulary(), messages_, options_.variables);
  const std::string text = with_context("chat template", [&] { return template_.render(variables, local_time()); });
  // The template writes the beginning token itself, where there is one.
  return tokenizer_.encode(text, {.add_special = false, .parse_special = true});
}

// Rewinds the session to what it shares with the prompt, less one token where that is all: something must be fed.
std::int64_t Chat::keep_common(const std::vector<token::TokenId>& prompt) {
  held_.resize(static_cast<std::size_t>(session_.position()));
  const auto [old, fresh] = std::ranges::mismatch(held_, prompt);
  std::int64_t common = old - held_.begin();
  if (fresh == prompt.end()) --common;
  session_.rewind(common);
  held_ = prompt;
  return common;
}

Answer Chat::answer(ExecContext& context, std::string text, const std::function<void(std::string_view)>& on_text) {
  const std::size_t n_before = messages_.size();
  messages_.push_back(message("user", std::move(text)));
  Answer answer;
  try {
    const std::vector<token::TokenId> prompt = encoded();
    if (prompt.empty()) fail(ErrorCode::kInvalidArgument, "the chat template gave no text");
    answer.prompt_tokens = static_cast<std::int64_t>(prompt.size());
    if (answer.prompt_tokens > session_.context()) {
      fail(ErrorCode::kInvalidArgument, "the conversation has {} tokens, the context has room for {}",
           answer.prompt_tokens, session_.context());
    }
    answer.reused_tokens = keep_common(prompt);
    generate_answer(context, std::span(prompt).subspan(static_cast<std::size_t>(answer.reused_tokens)), on_text,
                    answer);
  } catch (...) {
    messages_.resize(n_before);
    throw;
  }
  if (answer.generated.tokens.empty() && answer.generated.reason == StopReason::kCallback) {
    messages_.resize(n_before);
  } else {
    messages_.push_back(message("assistant", answer.text));
  }
  return answer;
}

void Chat::generate_answer(ExecContext& context, std::span<const token::TokenId> prompt,
                           const std::function<void(std::string_view)>& on_text, Answer& answer) {
  token::StreamDecoder decoder(tokenizer_);
  const auto emit = [&](const std::string& piece) {
    answer.text += piece;
    if (on_text && !piece.empty()) on_text(piece);
  };
  std::vector<token::TokenId> said;
  const auto on_token = [&](token::TokenId id) {
    said.push_back(id);
    held_.push_back(id);  // beyond the session's position until it is fed
    emit(decoder.push(id));
    return !context.cancel.cancelled();
  };
  GenerateOptions options;
  options.max_tokens = options_.max_tokens > 0 ? options_.max_tokens : std::numeric_limits<std::int64_t>::max();
  options.stop_tokens = end_tokens(tokenizer_.vocabulary());
  try {
    answer.generated = generate(context, session_, sampler_, prompt, options, on_token);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCancelled) throw;
    answer.generated.tokens = std::move(said);
    answer.generated.reason = StopReason::kCallback;
  }
  emit(decoder.finish());
}

}  // namespace nibble::engine
