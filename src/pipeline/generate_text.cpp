#include "base/error.h"
#include "nibble/generate.h"
#include "pipeline/generation.h"
#include "pipeline/loading.h"

namespace nibble {

Report generate_text(const RunContext& run, const GenerateRequest& request,
                     const std::function<void(std::string_view)>& on_text) {
  if (request.max_tokens < 0) fail(ErrorCode::kInvalidArgument, "{} tokens to write", request.max_tokens);
  const engine::SessionOptions session_options = pipeline::session_options(request);
  OwnedExecContext context(run);
  const auto source = model::ModelSource::open(request.model);
  const auto tokenizer = pipeline::load_tokenizer(*source);
  engine::Sampler sampler = pipeline::make_sampler(request, *tokenizer);
  const std::vector<token::TokenId> prompt = tokenizer->encode(request.prompt);
  if (prompt.empty()) fail(ErrorCode::kInvalidArgument, "the prompt is empty, and this model adds no beginning token");
  engine::Session session(pipeline::load_model(*context, source, request), session_options);

  // The decoder sees the prompt too, so that spaces and characters across its end come out right.
  token::StreamDecoder decoder(*tokenizer);
  std::string text;
  const auto emit = [&](std::string_view piece) {
    if (on_text && !piece.empty()) on_text(piece);
  };
  for (const token::TokenId id : prompt) emit(decoder.push(id));
  const auto on_token = [&](token::TokenId id) {
    const std::string piece = decoder.push(id);
    text += piece;
    emit(piece);
    return true;
  };
  engine::GenerateOptions options;
  options.max_tokens = request.max_tokens;
  if (!request.ignore_end) options.stop_tokens = engine::end_tokens(tokenizer->vocabulary());
  const engine::Generated generated = engine::generate(*context, session, sampler, prompt, options, on_token);
  const std::string rest = decoder.finish();
  text += rest;
  emit(rest);
  const auto report = pipeline::report_generation(generated, static_cast<std::int64_t>(prompt.size()), std::move(text));
  return {report.line, json::dump(report.json)};
}

}  // namespace nibble
