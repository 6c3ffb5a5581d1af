#include "engine/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"

namespace nibble::engine {

namespace {

void check_option(std::string_view name, float value, float low, float high) {
  if (!(value >= low && value <= high)) {
    fail(ErrorCode::kInvalidArgument, "{} is {}, expected {} to {}", name, value, low, high);
  }
}

}  // namespace

Sampler::Sampler(const SamplerOptions& options) : options_(options) {
  check_option("repetition penalty", options.repetition_penalty, 0.01f, 100);
  check_option("temperature", options.temperature, 0, 1000);
  check_option("top-p", options.top_p, 0, 1);
  check_option("min-p", options.min_p, 0, 1);
  for (const auto& [id, bias] : options.logit_bias) {
    const bool usable = std::isfinite(bias) || (std::isinf(bias) && bias < 0);
    if (id < 0 || !usable) fail(ErrorCode::kInvalidArgument, "logit bias {} of token {}", bias, id);
  }
  if (options.top_k < 0) fail(ErrorCode::kInvalidArgument, "top-k is {}", options.top_k);
  if (options.repetition_window < 0) {
    fail(ErrorCode::kInvalidArgument, "repetition window is {}", options.repetition_window);
  }
}

void Sampler::accept(token::TokenId id) {
  if (options_.repetition_penalty == 1) return;
  recent_.push_back(id);
  if (options_.repetition_window > 0 && static_cast<std::int64_t>(recent_.size()) > options_.repetition_window) {
    recent_.pop_front();
  }
}

void Sampler::penalize(std::vector<Candidate>& candidates) const {
  std::vector<token::TokenId> seen(recent_.begin(), recent_.end());
  std::ranges::sort(seen);
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  for (const token::TokenId id : seen) {
    if (id < 0 || static_cast<std::size_t>(id) >= candidates.size()) continue;
    float& logit = candidates[static_cast<std::size_t>(id)].logit;
    logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
  }
}

token::TokenId Sampler::sample(std::span<const float> logits) {
  candidates_.resize(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) fail(ErrorCode::kFormat, "the model's logit of token {} is not a number", i);
    candidates_[i] = {logits[i], static_cast<token::TokenId>(i)};
  }
  if (candidates_.empty()) fail(ErrorCode::kInvalidArgument, "no logits to choose from");
  for (const auto& [id, bias] : options_.logit_bias) {
    if (static_cast<std::size_t>(id) >= candidates_.size()) {
      fail(ErrorCode::kInvalidArgument, "logit bias of token {}, but there are {} tokens", id, candidates_.size());
    }
    candidates_[static_cast<std::size_t>(id)].logit += bias;
  }
  if (options_.repetition_penalty != 1) penalize(candidates_);
  const token::TokenId id =
      options_.temperature == 0 ? std::ranges::min_element(candidates_, better)->id : draw(candidates_);
  accept(id);
  return id;
}

token::TokenId Sampler::draw(std::vector<Candidate>& candidates) {
  if (options_.top_k > 0 && static_cast<std::size_t>(options_.top_k) < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + options_.top_k - 1, candidates.end(), better);
    candidates.resize(static_cast<std::size_t>(options_.top_k));
  }
  const float top = std::ranges::min_element(candidates, better)->logit;
  const auto weight = [&](const Candidate& c) {
    return std::exp(static_cast<double>(c.logit - top) / options_.temperature);
  };
  if (options_.min_p > 0) {
    std::erase_if(candidates, [&](const Candidate& c) { return weight(c) < options_.min_p; });
  }
  double total = 0;
  for (const Candidate& c : candidates) total += weight(c);
  const double uniform = random_uniform(options_.seed, 0, draws_++);

  // Likeliest first out of a heap: few are needed, so the vocabulary is never sorted as a whole.
  const auto worse = [](const Candidate& a, const Candidate& b) { return better(b, a); };
  std::ranges::make_heap(candidates, worse);
  weights_.clear();
  double kept = 0;
  auto end = candidates.end();
  while (end != candidates.begin() && (weights_.empty() || kept < options_.top_p * total)) {
    std::pop_heap(candidates.begin(), end, worse);
    --end;
    weights_.push_back(weight(*end));
    kept += weights_.back();
    if (options_.top_p >= 1 && kept > uniform * total) return end->id;
  }
  double sum = 0;
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    sum += weights_[i];
    if (sum > uniform * kept) return (candidates.end() - 1 - static_cast<std::ptrdiff_t>(i))->id;
  }
  return (candidates.end() - 1)->id;
}

}  // namespace nibble::engine
