#include "eval/speed.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/rng.h"
#include "encoding/encoding.h"
#include "eval/statistics.h"

namespace nibble::eval {

namespace {

using token::TokenId;

constexpr std::int64_t kFillTokens = 512;  // of one step towards the depth

std::vector<TokenId> random_tokens(std::int64_t n, std::int64_t vocab, std::uint64_t seed) {
  std::vector<TokenId> tokens;
  for (std::int64_t i = 0; i < n; ++i) {
    tokens.push_back(
        static_cast<TokenId>(random_bits(seed, 0, static_cast<std::uint64_t>(i)) % static_cast<std::uint64_t>(vocab)));
  }
  return tokens;
}

const SpeedOptions& checked(const SpeedOptions& options) {
  if (options.prompt < 0 || options.generate < 0 || options.prompt + options.generate == 0) {
    fail(ErrorCode::kInvalidArgument, "nothing to measure: {} prompt tokens, {} generated", options.prompt,
         options.generate);
  }
  if (options.depth < 0 || options.batch < 1) {
    fail(ErrorCode::kInvalidArgument, "depth {} and batch {}: a depth is not negative and a batch at least 1",
         options.depth, options.batch);
  }
  return options;
}

template <typename Work>
double seconds_of(Work&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

SpeedTrial::SpeedTrial(ExecContext& context, const model::Model& model, const SpeedOptions& options)
    : context_(context),
      model_(model),
      options_(checked(options)),
      tokens_(
          random_tokens(std::max({options.prompt, options.generate, kFillTokens}), model.spec().vocab, options.seed)),
      cache_(model.spec(), options.kv, options.batch, options.depth + std::max(options.prompt, options.generate)) {
  for (std::int64_t filled = 0; filled < options_.depth; filled += kFillTokens) {
    context_.check_cancelled();
    append(0, std::min(kFillTokens, options_.depth - filled), options_.batch);
  }
}

void SpeedTrial::append(std::int64_t begin, std::int64_t end, int sequences) {
  const auto part = std::span(tokens_).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
  std::vector<model::Segment> segments;
  for (int i = 0; i < sequences; ++i) segments.push_back({i, part, end - begin - 1});
  const std::int64_t vocab = model_.spec().vocab;
  model_.forward(context_, cache_, segments, [vocab](std::size_t, std::int64_t, std::int64_t n, const float* logits) {
    if (!encoding::row_is_finite(encoding::get("f32"), reinterpret_cast<const std::byte*>(logits), n * vocab)) {
      fail(ErrorCode::kFormat, "the model computed a logit that is NaN or infinite");
    }
  });
}

void SpeedTrial::rewind() {
  for (int i = 0; i < options_.batch; ++i) cache_.truncate(i, options_.depth);
}

double SpeedTrial::prefill() {
  rewind();
  return seconds_of([&] { append(0, options_.prompt, 1); });
}

double SpeedTrial::decode() {
  rewind();
  return seconds_of([&] {
    for (std::int64_t i = 0; i < options_.generate; ++i) append(i, i + 1, options_.batch);
  });
}

Rate make_rate(std::int64_t tokens, std::vector<double> seconds) {
  Rate rate;
  rate.seconds = std::move(seconds);
  if (rate.seconds.empty()) return rate;
  std::vector<double> sorted = rate.seconds;
  std::sort(sorted.begin(), sorted.end());
  rate.median_tok_s = static_cast<double>(tokens) / quantile(sorted, 0.5);
  rate.min_tok_s = static_cast<double>(tokens) / sorted.back();
  rate.max_tok_s = static_cast<double>(tokens) / sorted.front();
  return rate;
}

}  // namespace nibble::eval
