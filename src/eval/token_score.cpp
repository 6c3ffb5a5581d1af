#include "eval/token_score.h"

#include <cmath>

namespace nibble::eval {

LogitSummary summarize_logits(const float* logits, std::int64_t vocab) noexcept {
  LogitSummary summary;
  float largest = logits[0];
  for (std::int64_t i = 1; i < vocab; ++i) {
    if (logits[i] > largest) {
      largest = logits[i];
      summary.top = i;
    }
  }
  double sum = 0;
  for (std::int64_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(logits[i]) - largest);
  summary.log_sum = largest + std::log(sum);
  return summary;
}

double kl_divergence(const float* reference, const LogitSummary& reference_summary, const float* candidate,
                     const LogitSummary& candidate_summary, std::int64_t vocab) noexcept {
  double sum = 0;
  for (std::int64_t i = 0; i < vocab; ++i) {
    const double log_p = reference[i] - reference_summary.log_sum;
    const double log_q = candidate[i] - candidate_summary.log_sum;
    sum += std::exp(log_p) * (log_p - log_q);
  }
  return sum;
}

}  // namespace nibble::eval
