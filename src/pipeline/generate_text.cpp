#include "base/error.h"
#include "engine/generate.h"
#include "json/json.h"
#include "nibble/generate.h"
#include "pipeline/choices.h"
#include "pipeline/loading.h"

namespace nibble {

namespace {

std::string_view reason_name(engine::StopReason reason) {
  switch (reason) {
    case engine::StopReason::kMaxTokens:
      return "max_tokens";
    case engine::StopReason::kStopToken:
      return "end_of_text";
    case engine::StopReason::kContextFull:
      return "context_full";
    case engine::StopReason::kCallback:
      break;
  }
  return "stopped";
}

double rate(std::size_t n, double seconds) { return seconds > 0 ? static_cast<double>(n) / seconds : 0; }

Report to_report(const engine::Generated& generated, std::size_t prompt_tokens, std::string text) {
  // The first token comes out of the prompt's logits, so decoding starts with the second.
  const std::size_t decoded = generated.tokens.empty() ? 0 : generated.tokens.size() - 1;
  const double prefill = rate(prompt_tokens, generated.prompt_seconds);
  const double decode = rate(decoded, generated.decode_seconds);
  json::Value object;
  object.set("text", std::move(text));
  object.set("prompt_tokens", static_cast<std::int64_t>(prompt_tokens));
  json::Array tokens;
  for (const token::TokenId id : generated.tokens) tokens.push_back(id);
  object.set("tokens", std::move(tokens));
  object.set("stop_reason", reason_name(generated.reason));
  object.set("prefill_tok_s", prefill);
  object.set("decode_tok_s", decode);
  return {format_text("prompt {} tokens, {:.1f} tokens/s; text {} tokens, {:.1f} tokens/s; {}\n", prompt_tokens,
                      prefill, generated.tokens.size(), decode, reason_name(generated.reason)),
          json::dump(object)};
}

}  // namespace

Report generate_text(const RunContext& run, const GenerateRequest& request,
                     const std::function<void(std::string_view)>& on_text) {
  if (request.max_tokens < 0) fail(ErrorCode::kInvalidArgument, "{} tokens to write", request.max_tokens);
  const engine::SamplerOptions sampling{.repetition_penalty = request.repetition_penalty,
                                        .temperature = request.temperature,
                                        .top_k = request.top_k,
                                        .top_p = request.top_p,
                                        .min_p = request.min_p,
                                        .seed = request.seed};
  engine::Sampler sampler(sampling);
  const model::KvType kv = pipeline::parse_kv_type(request.kv_cache);
  OwnedExecContext context(run);
  const auto source = model::ModelSource::open(request.model);
  const auto tokenizer = pipeline::load_tokenizer(*source);
  const std::vector<token::TokenId> prompt = tokenizer->encode(request.prompt);
  if (prompt.empty()) fail(ErrorCode::kInvalidArgument, "the prompt is empty, and this model adds no beginning token");
  const auto path = request.exact ? model::MathPath::kExact : model::MathPath::kFast;
  engine::Session session(pipeline::load_model(*context, source, path), {.kv = kv, .context = request.context});

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
  return to_report(generated, prompt.size(), std::move(text));
}

}  // namespace nibble
