#include "cli/command_chat.h"

#include <csignal>
#include <iostream>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/terminal.h"
#include "cli/generation_options.h"
#include "nibble/chat.h"

namespace nibble::cli {

namespace {

constexpr std::string_view kReset = "/reset";

struct ChatCall {
  ChatRequest request;
  std::string prompt;
};

CancelToken* g_answer = nullptr;  // of the answer being written; a signal handler can reach nothing else

extern "C" void on_interrupt(int number) {
  if (g_answer != nullptr) g_answer->cancel();
  std::signal(number, SIG_DFL);  // the next one ends the program
}

// While it lives, Ctrl-C ends the answer; before and after, the program.
class AnswerInterrupt {
 public:
  AnswerInterrupt() {
    g_answer = &stop_;
    std::signal(SIGINT, on_interrupt);
  }
  ~AnswerInterrupt() {
    std::signal(SIGINT, SIG_DFL);
    g_answer = nullptr;
  }
  AnswerInterrupt(const AnswerInterrupt&) = delete;
  AnswerInterrupt& operator=(const AnswerInterrupt&) = delete;
  const CancelToken& stop() const { return stop_; }

 private:
  CancelToken stop_;
};

Report answer(Chat& chat, const Invocation& invocation, const std::string& message, const CancelToken& stop) {
  const bool show = invocation.wants_text();
  const Report report = chat.answer(message, stop, [&](std::string_view piece) {
    if (show) print(piece);
  });
  if (show) print("\n");
  return report;
}

// The next message, without its line end; nothing at the end of the input.
std::optional<std::string> read_message() {
  if (stdin_is_terminal()) write_stderr("> ");
  std::string line;
  if (!std::getline(std::cin, line)) return std::nullopt;
  return line;
}

void converse(Chat& chat, const Invocation& invocation) {
  if (stdin_is_terminal()) write_stderr("Ctrl-C ends an answer, Ctrl-D the chat; /reset begins a new one.\n");
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  std::string reports;
  while (const std::optional<std::string> message = read_message()) {
    if (message->empty()) continue;
    if (*message == kReset) {
      chat.reset();
      continue;
    }
    try {
      const AnswerInterrupt interrupt;
      reports += (reports.empty() ? "" : ",\n") + answer(chat, invocation, *message, interrupt.stop()).json;
    } catch (const Error& error) {
      if (!stdin_is_terminal()) throw;
      write_stderr(format_text("nibble: error: {}\n", error.what()));  // the conversation goes on
    }
  }
  if (stdin_is_terminal()) write_stderr("\n");
  invocation.write_json("[" + reports + "]");
}

}  // namespace

Command chat_command() {
  return {"chat", "talk with a model in turns", false, [](CLI::App& app) -> RunCommand {
            auto call = std::make_shared<ChatCall>();
            ChatRequest& request = call->request;
            app.add_option("MODEL", request.model, "folder or .gguf file")->required();
            app.add_option("-p,--prompt", call->prompt, "answer this message and end");
            app.add_option("-s,--system", request.system, "what the model is told before the conversation");
            app.add_option("-n,--tokens", request.max_tokens, "tokens of an answer at most; 0: as many as fit")
                ->capture_default_str();
            app.add_option("--template", request.chat_template,
                           "a Jinja file, or one of the model's own templates by name (its default one)");
            app.add_option("--template-vars", request.variables, "a JSON object: '{\"enable_thinking\": false}'");
            add_generation_options(app, request);
            return [call](const Invocation& invocation) {
              Chat chat(invocation.run, call->request);
              if (call->prompt.empty()) return converse(chat, invocation);
              const Report report = answer(chat, invocation, call->prompt, *invocation.run.cancel);
              if (invocation.run.cancel->cancelled()) fail(ErrorCode::kCancelled, "stopped on request");
              write_stderr(report.text);
              invocation.write_json(report.json);
            };
          }};
}

}  // namespace nibble::cli
