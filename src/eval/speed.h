// How fast a model reads and writes tokens on this machine.
#pragma once

#include <cstdint>
#include <vector>

#include "base/exec_context.h"
#include "model/model.h"

namespace nibble::eval {

struct SpeedOptions {
  std::int64_t prompt = 512;   // tokens of a prefill, run as one batch; 0: skip
  std::int64_t generate = 64;  // tokens decoded one by one from an empty cache; 0: skip
  int repetitions = 3;         // after one warm-up run of each
  model::KvType kv = model::KvType::kF16;
  std::uint64_t seed = 0;  // of the random tokens
};

struct Rate {
  std::vector<double> seconds;  // of each repetition, in order
  double median_tok_s = 0, min_tok_s = 0, max_tok_s = 0;
};
struct Speed {
  Rate prefill, decode;
};

// Prefill asks for the logits of the last token alone, decode for those of each, without sampling: what llama-bench's
// pp and tg measure. Throws Error{kInvalidArgument} when there is nothing to measure.
Speed measure_speed(ExecContext& context, const model::Model& model, const SpeedOptions& options);

}  // namespace nibble::eval
