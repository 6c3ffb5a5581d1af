#include "nibble/chat.h"

#include <algorithm>

#include "base/atomic_file.h"
#include "base/error.h"
#include "engine/chat.h"
#include "jinja/template.h"
#include "pipeline/generation.h"
#include "pipeline/loading.h"

namespace nibble {

namespace {

// The template asked for: a file, one of the model's by name, or its default one.
std::string template_source(const ChatRequest& request, const token::Vocabulary& vocabulary) {
  const auto& named = vocabulary.named_chat_templates;
  if (!request.chat_template.empty()) {
    const auto found = std::ranges::find(named, request.chat_template, &std::pair<std::string, std::string>::first);
    return found != named.end() ? found->second : read_file(request.chat_template);
  }
  if (!vocabulary.chat_template.empty()) return vocabulary.chat_template;
  std::string names;
  for (const auto& [name, text] : named) names += (names.empty() ? " or " : ", ") + name;
  fail(ErrorCode::kNotFound, "'{}' has no chat template: give one with --template FILE{}, or continue text with run",
       request.model.string(), names);
}

jinja::Template parse_template(const ChatRequest& request, const token::Vocabulary& vocabulary) {
  const std::string where =
      request.chat_template.empty() ? request.model.string() + ": chat template" : request.chat_template;
  const std::string source = template_source(request, vocabulary);
  return with_context(where, [&] { return jinja::Template(source); });
}

json::Object parse_variables(const std::string& text) {
  if (text.empty()) return {};
  return with_context("variables of the chat template", [&] { return json::parse(text).as_object(); });
}

}  // namespace

struct Chat::State {
  State(const RunContext& run, const ChatRequest& request)
      : session(pipeline::session_options(request)),
        context(run),
        source(model::ModelSource::open(request.model)),
        tokenizer(pipeline::load_tokenizer(*source)),
        chat_template(parse_template(request, tokenizer->vocabulary())),
        options({.system = request.system,
                 .variables = parse_variables(request.variables),
                 .max_tokens = request.max_tokens}),
        sampler(pipeline::make_sampler(request, *tokenizer)),
        chat(pipeline::load_model(*context, source, request), session, std::move(sampler), *tokenizer,
             std::move(chat_template), std::move(options)) {}

  engine::SessionOptions session;
  OwnedExecContext context;
  std::shared_ptr<const model::ModelSource> source;
  std::unique_ptr<token::Tokenizer> tokenizer;
  jinja::Template chat_template;  // these three: on their way into the chat
  engine::ChatOptions options;
  engine::Sampler sampler;
  engine::Chat chat;
};

Chat::Chat(const RunContext& run, const ChatRequest& request) {
  if (request.max_tokens < 0) fail(ErrorCode::kInvalidArgument, "{} tokens to write", request.max_tokens);
  state_ = std::make_unique<State>(run, request);
}
Chat::~Chat() = default;
Chat::Chat(Chat&&) noexcept = default;
Chat& Chat::operator=(Chat&&) noexcept = default;

Report Chat::answer(std::string_view message, const CancelToken& stop,
                    const std::function<void(std::string_view)>& on_text) {
  ExecContext context{state_->context->pool, stop, state_->context->progress};
  const engine::Answer answer = state_->chat.answer(context, std::string(message), on_text);
  auto report = pipeline::report_generation(answer.generated, answer.prompt_tokens - answer.reused_tokens, answer.text);
  report.json.set("reused_tokens", answer.reused_tokens);
  return {report.line, json::dump(report.json)};
}

void Chat::reset() { state_->chat.reset(); }

}  // namespace nibble
