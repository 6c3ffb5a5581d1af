#include "eval/measures.h"

#include <algorithm>
#include <cmath>

#include "base/format.h"

namespace nibble::eval {

namespace {

Distance measure_distance(const TokenScores& scores, const TokenScores& reference) {
  Distance distance;
  distance.kld = mean_with_error(scores.kld);
  std::vector<double> sorted = scores.kld;
  std::sort(sorted.begin(), sorted.end());
  distance.kld_median = quantile(sorted, 0.5);
  distance.kld_p99 = quantile(sorted, 0.99);
  distance.kld_p999 = quantile(sorted, 0.999);
  distance.kld_max = sorted.back();

  const std::vector<double> same(scores.same_top.begin(), scores.same_top.end());
  distance.top1 = mean_with_error(same);
  distance.delta_p = mean_with_error(scores.delta_p);
  std::vector<double> work(scores.delta_p.size());
  std::transform(scores.delta_p.begin(), scores.delta_p.end(), work.begin(), [](double d) { return d * d; });
  distance.delta_p_rms = std::sqrt(mean_with_error(work).mean);

  std::transform(scores.nll.begin(), scores.nll.end(), reference.nll.begin(), work.begin(), std::minus<>());
  distance.ln_ppl_ratio = mean_with_error(work);
  distance.nll_correlation = correlation(scores.nll, reference.nll);
  distance.reference_perplexity = std::exp(mean_with_error(reference.nll).mean);
  return distance;
}

}  // namespace

Measures measure(const TokenScores& scores, const TokenScores* reference) {
  Measures measures;
  measures.tokens = static_cast<std::int64_t>(scores.nll.size());
  measures.nll = mean_with_error(scores.nll);
  measures.perplexity = std::exp(measures.nll.mean);
  measures.perplexity_error = measures.perplexity * measures.nll.error;
  if (reference != nullptr && !scores.kld.empty()) measures.distance = measure_distance(scores, *reference);
  return measures;
}

void add_to_json(const Measures& measures, std::string_view suffix, json::Value& object) {
  const auto set = [&](std::string_view name, double value) {
    object.set(std::string(name) + std::string(suffix), value);
  };
  set("perplexity", measures.perplexity);
  set("perplexity_error", measures.perplexity_error);
  set("nll_mean", measures.nll.mean);
  set("nll_error", measures.nll.error);
  if (!measures.distance) return;
  const Distance& distance = *measures.distance;
  set("kld_mean", distance.kld.mean);
  set("kld_error", distance.kld.error);
  set("kld_median", distance.kld_median);
  set("kld_p99", distance.kld_p99);
  set("kld_p999", distance.kld_p999);
  set("kld_max", distance.kld_max);
  set("top1", distance.top1.mean);
  set("top1_error", distance.top1.error);
  set("delta_p_mean", distance.delta_p.mean);
  set("delta_p_error", distance.delta_p.error);
  set("delta_p_rms", distance.delta_p_rms);
  set("ln_ppl_ratio", distance.ln_ppl_ratio.mean);
  set("ln_ppl_ratio_error", distance.ln_ppl_ratio.error);
  set("nll_correlation", distance.nll_correlation);
}

std::string to_text(std::string_view title, const Measures& measures) {
  std::string text =
      format_text("{:<11} perplexity {:.4f} +- {:.4f}\n", title, measures.perplexity, measures.perplexity_error);
  if (!measures.distance) return text;
  const Distance& d = *measures.distance;
  const auto line = [&](const std::string& content) { text += format_text("{:<11} {}\n", "", content); };
  line(format_text("ln(ppl / reference's) {:+.6f} +- {:.6f}, correlation of losses {:.4f}", d.ln_ppl_ratio.mean,
                   d.ln_ppl_ratio.error, d.nll_correlation));
  line(format_text("KL divergence mean {:.6f} +- {:.6f}, median {:.6f}, 99 % {:.6f}, 99.9 % {:.6f}, max {:.6f}",
                   d.kld.mean, d.kld.error, d.kld_median, d.kld_p99, d.kld_p999, d.kld_max));
  line(format_text("same top token {:.3f} +- {:.3f} %", d.top1.mean * 100, d.top1.error * 100));
  line(format_text("change of probability mean {:+.4f} +- {:.4f} %, RMS {:.4f} %", d.delta_p.mean * 100,
                   d.delta_p.error * 100, d.delta_p_rms * 100));
  return text;
}

std::vector<double> chunk_sums(std::span<const double> per_token, std::int64_t tokens_per_chunk) {
  const auto size = static_cast<std::size_t>(tokens_per_chunk);
  std::vector<double> sums(per_token.size() / size);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    for (const double value : per_token.subspan(i * size, size)) sums[i] += value;
  }
  return sums;
}

}  // namespace nibble::eval
