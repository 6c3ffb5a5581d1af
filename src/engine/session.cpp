#include "engine/session.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace nibble::engine {

Session::Session(std::shared_ptr<const model::Model> model, const SessionOptions& options)
    : model_(std::move(model)),
      cache_(model_->spec(), options.kv.value_or(model::default_kv_type(model_->spec(), model_->path())), 1,
             options.context > 0 ? options.context : model_->spec().context),
      logits_(static_cast<std::size_t>(model_->spec().vocab)) {}

std::span<const float> Session::feed(ExecContext& context, std::span<const token::TokenId> tokens) {
  if (tokens.empty()) fail(ErrorCode::kInvalidArgument, "no tokens to continue from");
  const model::Segment segment = {0, tokens, static_cast<std::int64_t>(tokens.size()) - 1};
  model_->forward(context, cache_, {&segment, 1}, [this](std::size_t, std::int64_t, std::int64_t, const float* logits) {
    std::copy_n(logits, logits_.size(), logits_.data());
  });
  if (!std::ranges::all_of(logits_, [](float logit) { return std::isfinite(logit); })) {
    fail(ErrorCode::kFormat, "the model computed NaN or infinity: its weights are damaged, or overflow");
  }
  return logits_;
}

}  // namespace nibble::engine
