// The figures of one predicted token, from its logits: log-likelihood, divergence from a reference, agreement.
#pragma once

#include <cstdint>

namespace nibble::eval {

// What the softmax of one row of logits needs.
struct LogitSummary {
  double log_sum = 0;    // ln sum_i exp(logits[i])
  std::int64_t top = 0;  // index of the largest logit, the first of equals
};

// One row of `vocab` logits. Sums in f64; log_sum is NaN or infinite when a logit is.
LogitSummary summarize_logits(const float* logits, std::int64_t vocab) noexcept;

// Kullback-Leibler divergence KL(reference || candidate) in nats, in f64: sum_i p_i (ln p_i - ln q_i).
double kl_divergence(const float* reference, const LogitSummary& reference_summary, const float* candidate,
                     const LogitSummary& candidate_summary, std::int64_t vocab) noexcept;

}  // namespace nibble::eval
