// One conversation with a model: its key/value cache and how far it has come.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/exec_context.h"
#include "model/model.h"

namespace nibble::engine {

struct SessionOptions {
  std::optional<model::KvType> kv{};  // the default is model::default_kv_type()
  std::int64_t context = 0;           // tokens of room; 0: the model's trained context
};

// One user at a time; any number of sessions share a model.
class Session {
 public:
  explicit Session(std::shared_ptr<const model::Model> model, const SessionOptions& options = {});

  const model::Model& model() const { return *model_; }
  std::int64_t position() const { return cache_.length(0); }  // tokens held
  std::int64_t context() const { return cache_.context(); }
  std::uint64_t kv_bytes() const { return cache_.bytes(); }

  // Appends tokens (at least one) and gives the logits after the last, (vocab), valid until the next call. Throws
  // Error{kInvalidArgument} when they do not fit or an id does not exist, Error{kCancelled}; the session is then as
  // before. Throws Error{kFormat} when a logit is NaN or infinite.
  std::span<const float> feed(ExecContext& context, std::span<const token::TokenId> tokens);
  // Forgets the tokens from `position` on.
  void rewind(std::int64_t position) { cache_.truncate(0, position); }

 private:
  std::shared_ptr<const model::Model> model_;
  model::KvCache cache_;
  std::vector<float> logits_;
};

}  // namespace nibble::engine
