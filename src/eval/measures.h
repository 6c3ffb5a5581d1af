// What a run over a text says of a model: perplexity, and its distance from a reference.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "eval/score.h"
#include "eval/statistics.h"
#include "json/json.h"

namespace nibble::eval {

// Distance from the reference, over all scored tokens.
struct Distance {
  MeanError kld;  // nats
  double kld_median = 0, kld_p99 = 0, kld_p999 = 0, kld_max = 0;
  MeanError top1;     // share of tokens where both prefer the same one
  MeanError delta_p;  // of the probability of the text's token
  double delta_p_rms = 0;
  MeanError ln_ppl_ratio;      // ln(perplexity / perplexity of the reference), error from the paired differences
  double nll_correlation = 0;  // of the two models' token losses
  double reference_perplexity = 0;
};

struct Measures {
  std::int64_t tokens = 0;
  MeanError nll;
  double perplexity = 0;
  double perplexity_error = 0;  // standard error, first order: perplexity * error of the mean loss
  std::optional<Distance> distance;
};

// `reference` is null when the scores were taken without one.
Measures measure(const TokenScores& scores, const TokenScores* reference);

// Adds the figures to an object: perplexity, perplexity_error, ..., kld_mean, kld_p999, top1, each name followed by
// `suffix`.
void add_to_json(const Measures& measures, std::string_view suffix, json::Value& object);

// The same as a few lines for a reader, headed by `title`.
std::string to_text(std::string_view title, const Measures& measures);

// Sums of a figure over the tokens of each chunk: the units that a bootstrap draws.
std::vector<double> chunk_sums(std::span<const double> per_token, std::int64_t tokens_per_chunk);

}  // namespace nibble::eval
