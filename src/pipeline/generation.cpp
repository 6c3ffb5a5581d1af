#include "pipeline/generation.h"

#include "base/error.h"
#include "pipeline/choices.h"
#include "pipeline/loading.h"

namespace nibble::pipeline {

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

}  // namespace

engine::Sampler make_sampler(const GenerationSettings& settings, const token::Tokenizer& tokenizer) {
  for (const auto& [id, bias] : settings.logit_bias) {
    if (id < 0 || id >= tokenizer.size()) {
      fail(ErrorCode::kInvalidArgument, "logit bias of token {}, but there are {} tokens", id, tokenizer.size());
    }
  }
  return engine::Sampler({.logit_bias = settings.logit_bias,
                          .repetition_penalty = settings.repetition_penalty,
                          .repetition_window = settings.repetition_window,
                          .temperature = settings.temperature,
                          .top_k = settings.top_k,
                          .top_p = settings.top_p,
                          .min_p = settings.min_p,
                          .seed = settings.seed});
}

engine::SessionOptions session_options(const GenerationSettings& settings) {
  engine::SessionOptions options{.context = settings.context};
  if (!settings.kv_cache.empty()) options.kv = parse_kv_type(settings.kv_cache);
  return options;
}

std::shared_ptr<const model::Model> load_model(ExecContext& context,
                                               const std::shared_ptr<const model::ModelSource>& source,
                                               const GenerationSettings& settings) {
  return load_model(context, source, settings.exact ? model::MathPath::kExact : model::MathPath::kFast,
                    settings.adapters);
}

GenerationReport report_generation(const engine::Generated& generated, std::int64_t fed, std::string text) {
  // The first token comes out of the prompt's logits, so decoding starts with the second.
  const std::size_t decoded = generated.tokens.empty() ? 0 : generated.tokens.size() - 1;
  const double prefill = rate(static_cast<std::size_t>(fed), generated.prompt_seconds);
  const double decode = rate(decoded, generated.decode_seconds);
  json::Value object;
  object.set("text", std::move(text));
  object.set("prompt_tokens", fed);
  json::Array tokens;
  for (const token::TokenId id : generated.tokens) tokens.push_back(id);
  object.set("tokens", std::move(tokens));
  object.set("stop_reason", reason_name(generated.reason));
  object.set("prefill_tok_s", prefill);
  object.set("decode_tok_s", decode);
  return {format_text("prompt {} tokens, {:.1f} tokens/s; text {} tokens, {:.1f} tokens/s; {}\n", fed, prefill,
                      generated.tokens.size(), decode, reason_name(generated.reason)),
          std::move(object)};
}

}  // namespace nibble::pipeline
