// A conversation in turns: messages through a chat template to tokens, of which the session keeps what it has seen.
#pragma once

#include <ctime>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/generate.h"
#include "jinja/template.h"
#include "json/json.h"

namespace nibble::engine {

struct ChatOptions {
  std::string system = {};      // empty: no system message
  json::Object variables = {};  // of the template, besides messages and special tokens
  std::int64_t max_tokens = 0;  // of one answer; 0: as many as the context has room for
};

struct Answer {
  std::string text;
  Generated generated;
  std::int64_t prompt_tokens = 0;  // of the whole conversation so far
  std::int64_t reused_tokens = 0;  // of those, found in the session's cache
};

// What a template is given for `messages`: bos_token and its kind, no tools, and that an answer is wanted.
json::Value template_variables(const token::Vocabulary& vocabulary, json::Array messages, const json::Object& others);

class Chat {
 public:
  Chat(std::shared_ptr<const model::Model> model, const SessionOptions& session, Sampler sampler,
       const token::Tokenizer& tokenizer, jinja::Template chat_template, ChatOptions options);

  // Adds the message and its answer, which ends at a stop token, where the room ends, or when context.cancel says so;
  // on_text gets it piece by piece. A cancelled answer counts with what it has; where nothing was said yet the message
  // is forgotten, as when this throws (Error{kInvalidArgument} when the conversation does not fit the context).
  Answer answer(ExecContext& context, std::string message, const std::function<void(std::string_view)>& on_text = {});
  void reset();

  const json::Array& messages() const { return messages_; }

 private:
  std::vector<token::TokenId> encoded() const;
  std::int64_t keep_common(const std::vector<token::TokenId>& prompt);
  void generate_answer(ExecContext& context, std::span<const token::TokenId> prompt,
                       const std::function<void(std::string_view)>& on_text, Answer& answer);

  Session session_;
  Sampler sampler_;
  const token::Tokenizer& tokenizer_;
  jinja::Template template_;
  ChatOptions options_;
  json::Array messages_;
  std::vector<token::TokenId> held_;  // the tokens in the session
};

}  // namespace nibble::engine
