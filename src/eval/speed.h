// How fast a model reads and writes tokens on this machine.
#pragma once

#include <cstdint>
#include <vector>

#include "base/exec_context.h"
#include "model/model.h"

namespace nibble::eval {

struct SpeedOptions {
  std::int64_t prompt = 512;   // tokens of a prefill, run as one batch; 0: no prefill
  std::int64_t generate = 64;  // tokens decoded one by one in each sequence; 0: no decode
  std::int64_t depth = 0;      // tokens in the cache before either begins
  int batch = 1;               // sequences that decode together
  model::KvType kv = model::KvType::kF16;
  std::uint64_t seed = 0;  // of the random tokens
};

// One model and one cache, timed as often as asked. Prefill asks for the logits of the last token alone, decode for
// those of each, without sampling: what llama-bench's pp and tg measure.
class SpeedTrial {
 public:
  // Fills the cache to `depth`. Throws Error{kInvalidArgument} when there is nothing to measure.
  SpeedTrial(ExecContext& context, const model::Model& model, const SpeedOptions& options);
  // Seconds of one run. Throw Error{kFormat} when a logit is NaN or infinite.
  double prefill();
  double decode();
  std::int64_t decoded_tokens() const { return options_.generate * options_.batch; }

 private:
  // Appends tokens [begin, end) to the first `sequences` sequences, as one batch; positions begin at `depth` + begin.
  void append(std::int64_t begin, std::int64_t end, int sequences);
  void rewind();

  ExecContext& context_;
  const model::Model& model_;
  SpeedOptions options_;
  std::vector<token::TokenId> tokens_;
  model::KvCache cache_;
};

struct Rate {
  std::vector<double> seconds;  // of each run, in order
  double median_tok_s = 0, min_tok_s = 0, max_tok_s = 0;
};
Rate make_rate(std::int64_t tokens, std::vector<double> seconds);

}  // namespace nibble::eval
