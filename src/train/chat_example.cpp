#include "train/chat_example.h"

#include <optional>
#include <string>

#include "base/error.h"
#include "engine/chat.h"
#include "engine/generate.h"

namespace nibble::train {

namespace {

using token::TokenId;

// Put before or behind what a message says to see where that stands: no white space, and in no text.
constexpr const char* kMark = "\x7F";
// Tokens behind an answer in which its end token is looked for when the template renders later turns in another way.
constexpr std::size_t kNear = 3;

template <typename Sequence>
std::size_t common(const Sequence& a, const Sequence& b) {
  return static_cast<std::size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

class Conversation {
 public:
  Conversation(const token::Tokenizer& tokenizer, const jinja::Template& chat_template, const json::Array& messages,
               const json::Object& others, const std::tm& now)
      : tokenizer_(tokenizer),
        template_(chat_template),
        messages_(messages),
        others_(others),
        now_(now),
        ends_(engine::end_tokens(tokenizer.vocabulary())),
        text_(with_context("chat template", [&] { return render(messages, false); })),
        tokens_(encode(text_)) {
    find_ends();
  }
  Example example() const;

 private:
  struct Span {  // in bytes of text_ or in tokens
    std::size_t begin = 0, end = 0;
  };
  std::string render(json::Array messages, bool wants_answer) const;
  std::vector<TokenId> encode(std::string_view text) const {
    // The template writes the beginning token itself, where there is one.
    return tokenizer_.encode(text, {.add_special = false, .parse_special = true});
  }
  // How long the rendering of the first `n` messages is, if the whole begins with it.
  std::optional<std::size_t> length_of_first(std::size_t n, bool wants_answer) const;
  // Where the rendering with another content begins to differ; nothing where it does not.
  std::optional<std::size_t> first_difference(std::size_t message, std::string content) const;
  void find_ends();
  // The token in which byte `at` of the text stands.
  std::size_t token_at(std::size_t at) const {
    if (ends_at_.empty()) return common(tokens_, encode(std::string_view(text_).substr(0, at)));
    return static_cast<std::size_t>(std::ranges::upper_bound(ends_at_, at) - ends_at_.begin());
  }
  Span answer(std::size_t message) const;

  const token::Tokenizer& tokenizer_;
  const jinja::Template& template_;
  const json::Array& messages_;
  const json::Object& others_;
  const std::tm& now_;
  std::vector<TokenId> ends_;
  std::string text_;
  std::vector<TokenId> tokens_;
  std::vector<std::size_t> ends_at_;  // of each token, in text_; empty where the tokens spell another text
};

// Tokens spell the text, perhaps with a space before it, unless the tokenizer normalises it.
void Conversation::find_ends() {
  std::string spelled;
  for (const TokenId id : tokens_) {
    spelled += tokenizer_.token_bytes(id, true);
    ends_at_.push_back(spelled.size());
  }
  const std::size_t before = spelled.size() - std::min(spelled.size(), text_.size());
  if (before > 1 || std::string_view(spelled).substr(before) != text_) return ends_at_.clear();
  for (std::size_t& end : ends_at_) end -= before;
}

std::string Conversation::render(json::Array messages, bool wants_answer) const {
  json::Value variables = engine::template_variables(tokenizer_.vocabulary(), std::move(messages), others_);
  variables.set("add_generation_prompt", wants_answer);
  return template_.render(variables, now_);
}

std::optional<std::size_t> Conversation::length_of_first(std::size_t n, bool wants_answer) const {
  if (n == 0) return std::nullopt;
  try {
    const auto end = messages_.begin() + static_cast<std::ptrdiff_t>(n);
    const std::string text = render({messages_.begin(), end}, wants_answer);
    if (text_.starts_with(text)) return text.size();
  } catch (const Error&) {  // a template that wants whole conversations
  }
  return std::nullopt;
}

std::optional<std::size_t> Conversation::first_difference(std::size_t message, std::string content) const {
  json::Array changed = messages_;
  changed[message].set("content", std::move(content));
  const std::string other = with_context("chat template", [&] { return render(std::move(changed), false); });
  if (other == text_) return std::nullopt;
  return common(text_, other);
}

// From where the template asks for an answer, else from what is said on, to the first end token behind what is said;
// without one to where the template ends the turn. In tokens.
Conversation::Span Conversation::answer(std::size_t message) const {
  const std::string& content = messages_[message].at("content").as_string();
  const std::optional<std::size_t> asked = length_of_first(message, true), whole = length_of_first(message + 1, false),
                                   first = first_difference(message, kMark + content),
                                   last = first_difference(message, content + kMark);
  const std::size_t begin = asked.value_or(first.value_or(text_.size()));
  const std::size_t said = std::min(last.value_or(begin), whole.value_or(text_.size()));
  if (said < begin || begin == text_.size() || (!content.empty() && !last)) {
    fail(ErrorCode::kInvalidArgument, "message {}: the chat template does not show where this answer stands",
         message + 1);
  }
  Span span{token_at(begin), token_at(said)};
  const std::size_t limit = whole ? token_at(*whole) : std::min(tokens_.size(), span.end + kNear);
  const auto behind = tokens_.begin() + static_cast<std::ptrdiff_t>(span.end);
  const auto stop = tokens_.begin() + static_cast<std::ptrdiff_t>(std::max(limit, span.end));
  const auto end = std::find_first_of(behind, stop, ends_.begin(), ends_.end());
  if (end != stop) {
    span.end = static_cast<std::size_t>(end - tokens_.begin()) + 1;
  } else if (whole) {
    span.end = std::max(limit, span.end);
  }
  return span;
}

Example Conversation::example() const {
  Example example{tokens_, std::vector<std::uint8_t>(tokens_.size(), 0)};
  std::size_t before = 0;
  for (std::size_t i = 0; i < messages_.size(); ++i) {
    if (messages_[i].at("role").as_string() != "assistant") continue;
    const Span span = answer(i);
    if (span.begin < before) {
      fail(ErrorCode::kInvalidArgument, "message {}: the chat template does not show where this answer begins", i + 1);
    }
    std::fill(example.learned.begin() + static_cast<std::ptrdiff_t>(span.begin),
              example.learned.begin() + static_cast<std::ptrdiff_t>(span.end), std::uint8_t{1});
    before = span.end;
  }
  if (!example.learned.empty()) example.learned[0] = 0;
  return example;
}

}  // namespace

Example chat_example(const token::Tokenizer& tokenizer, const jinja::Template& chat_template,
                     const json::Array& messages, const json::Object& others, const std::tm& now) {
  bool answered = false;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    with_context(format_text("message {}", i + 1), [&] {
      answered = with_context("'role'", [&] { return messages[i].at("role").as_string() == "assistant"; }) || answered;
      with_context("'content'", [&] { messages[i].at("content").as_string(); });
    });
  }
  if (!answered) fail(ErrorCode::kInvalidArgument, "no message is the assistant's: there is nothing to learn");
  return Conversation(tokenizer, chat_template, messages, others, now).example();
}

}  // namespace nibble::train
