// Talks with a model in turns, through the chat template that the model brings.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "nibble/generation_settings.h"
#include "nibble/report.h"
#include "nibble/run_context.h"

namespace nibble {

struct ChatRequest : GenerationSettings {
  std::filesystem::path model;
  std::string system;           // the system message; empty: none
  std::string chat_template;    // a file, or the name of one of the model's own templates; empty: its default one
  std::string variables;        // further variables of the template, as a JSON object: {"enable_thinking": false}
  std::int64_t max_tokens = 0;  // of one answer; 0: until the model ends it or the context is full
};

class Chat {
 public:
  // Loads the model. `run` must outlive the chat. Throws Error{kNotFound} for a model without a chat template.
  Chat(const RunContext& run, const ChatRequest& request);
  ~Chat();
  Chat(Chat&&) noexcept;
  Chat& operator=(Chat&&) noexcept;

  // Answers the next message, giving the text to `on_text` piece by piece, never splitting a character; what the model
  // has seen of the conversation is not computed again. `stop` ends the answer early: what is said so far then counts.
  // The report's text is one line about the speed. Throws Error{kInvalidArgument} when the conversation does not fit
  // the context or the template refuses it; the message then is not part of the conversation.
  Report answer(std::string_view message, const CancelToken& stop,
                const std::function<void(std::string_view)>& on_text = {});
  // Begins a new conversation.
  void reset();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
