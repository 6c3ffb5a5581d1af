#include "eval/speed.h"

#include <algorithm>
#include <chrono>

#include "base/rng.h"

namespace nibble::eval {

namespace {

using token::TokenId;

void ignore_logits(std::size_t, std::int64_t, std::int64_t, const float*) {}

std::vector<TokenId> random_tokens(std::int64_t n, std::int64_t vocab, std::uint64_t seed) {
  std::vector<TokenId> tokens;
  for (std::int64_t i = 0; i < n; ++i) {
    tokens.push_back(
        static_cast<TokenId>(random_bits(seed, 0, static_cast<std::uint64_t>(i)) % static_cast<std::uint64_t>(vocab)));
  }
  return tokens;
}

template <typename Work>
Rate time_runs(ExecContext& context, std::string_view task, std::int64_t tokens, int repetitions, Work&& work) {
  Rate rate;
  ProgressTask progress(context.progress, task, static_cast<std::uint64_t>(tokens * (repetitions + 1)), "tokens");
  for (int i = 0; i <= repetitions; ++i) {  // the first one warms up
    context.check_cancelled();
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (i > 0) rate.seconds.push_back(seconds.count());
    progress.add(static_cast<std::uint64_t>(tokens));
  }
  std::vector<double> sorted = rate.seconds;
  std::sort(sorted.begin(), sorted.end());
  const std::size_t n = sorted.size();
  const double median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
  rate.median_tok_s = static_cast<double>(tokens) / median;
  rate.min_tok_s = static_cast<double>(tokens) / sorted.back();
  rate.max_tok_s = static_cast<double>(tokens) / sorted.front();
  return rate;
}

}  // namespace

Speed measure_speed(ExecContext& context, const model::Model& model, const SpeedOptions& options) {
  if (options.prompt < 0 || options.generate < 0 || options.prompt + options.generate == 0 || options.repetitions < 1) {
    fail(ErrorCode::kInvalidArgument, "nothing to measure: {} prompt tokens, {} generated, {} repetitions",
         options.prompt, options.generate, options.repetitions);
  }
  const std::int64_t longest = std::max(options.prompt, options.generate);
  const std::vector<TokenId> tokens = random_tokens(longest, model.spec().vocab, options.seed);
  model::KvCache cache(model.spec(), options.kv, 1, longest);
  const auto append = [&](std::int64_t begin, std::int64_t end) {
    const auto part = std::span(tokens).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    const model::Segment segment{0, part, end - begin - 1};
    model.forward(context, cache, {&segment, 1}, ignore_logits);
  };
  Speed speed;
  if (options.prompt > 0) {
    speed.prefill = time_runs(context, "prefill", options.prompt, options.repetitions, [&] {
      cache.truncate(0, 0);
      append(0, options.prompt);
    });
  }
  if (options.generate > 0) {
    speed.decode = time_runs(context, "decode", options.generate, options.repetitions, [&] {
      cache.truncate(0, 0);
      for (std::int64_t i = 0; i < options.generate; ++i) append(i, i + 1);
    });
  }
  return speed;
}

}  // namespace nibble::eval
