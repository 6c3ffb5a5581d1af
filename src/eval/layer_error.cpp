#include "eval/layer_error.h"

#include <algorithm>
#include <cmath>

namespace nibble::eval {

namespace {

using calib::TokenChunks;

// Keeps the hidden states after every block, token by token.
class StateKeeper final : public model::ForwardObserver {
 public:
  explicit StateKeeper(int n_layers) : states_(static_cast<std::size_t>(n_layers) + 1) {}
  void block_output(ExecContext& /*context*/, int layer, const float* x, std::int64_t n, std::int64_t hidden) override {
    std::vector<float>& state = states_[static_cast<std::size_t>(layer + 1)];
    state.insert(state.end(), x, x + n * hidden);
  }
  const std::vector<std::vector<float>>& states() const { return states_; }  // [layer + 1]: (tokens, hidden)

 private:
  std::vector<std::vector<float>> states_;
};

struct Sums {
  double squares = 0, differences = 0;
  double ratios = 0, cosines = 0;
  std::int64_t tokens = 0;

  void add_token(const float* h, const float* other, std::int64_t hidden) {
    double hh = 0, oo = 0, ho = 0, dd = 0;
    for (std::int64_t i = 0; i < hidden; ++i) {
      const double a = h[i];
      const double b = other[i];
      hh += a * a;
      oo += b * b;
      ho += a * b;
      dd += (a - b) * (a - b);
    }
    squares += hh;
    differences += dd;
    ratios += hh > 0 ? std::sqrt(dd / hh) : 0;
    cosines += hh > 0 && oo > 0 ? ho / std::sqrt(hh * oo) : (dd > 0 ? 0 : 1);
    ++tokens;
  }
};

StateKeeper run(ExecContext& context, const Contender& contender, const TokenChunks& chunks, std::int64_t first,
                std::int64_t n) {
  StateKeeper keeper(contender.model->spec().n_layers());
  model::KvCache cache(contender.model->spec(), contender.kv, static_cast<int>(n), chunks.context);
  std::vector<model::Segment> segments;
  for (std::int64_t i = 0; i < n; ++i)
    segments.push_back({static_cast<int>(i), chunks.chunk(first + i), chunks.context});
  contender.model->forward(
      context, cache, segments, [](std::size_t, std::int64_t, std::int64_t, const float*) {}, &keeper);
  return keeper;
}

LayerError to_error(int layer, const Sums& sums) {
  if (!std::isfinite(sums.squares) || !std::isfinite(sums.differences)) {
    fail(ErrorCode::kFormat, "the hidden states {} are not finite: a model's weights are damaged, or overflow",
         layer < 0 ? std::string("of the embedding") : format_text("after block {}", layer));
  }
  LayerError error;
  error.layer = layer;
  const auto tokens = static_cast<double>(std::max<std::int64_t>(sums.tokens, 1));
  error.relative_error = sums.squares > 0 ? std::sqrt(sums.differences / sums.squares) : 0;
  error.mean_token_error = sums.ratios / tokens;
  error.cosine = sums.cosines / tokens;
  return error;
}

}  // namespace

std::vector<LayerError> layer_errors(ExecContext& context, const TokenChunks& chunks, const Contender& reference,
                                     const Contender& candidate, std::int64_t batch_tokens) {
  const model::ModelSpec& spec = reference.model->spec();
  if (candidate.model->spec().n_layers() != spec.n_layers() || candidate.model->spec().hidden != spec.hidden) {
    fail(ErrorCode::kInvalidArgument, "{} has {} layers of width {}, {} has {} of {}", candidate.label,
         candidate.model->spec().n_layers(), candidate.model->spec().hidden, reference.label, spec.n_layers(),
         spec.hidden);
  }
  const auto n_states = static_cast<std::size_t>(spec.n_layers()) + 1;
  std::vector<Sums> sums(n_states);
  const std::int64_t batch = std::clamp(batch_tokens / chunks.context, std::int64_t{1}, chunks.n_chunks);
  ProgressTask progress(context.progress, "error over depth", chunks.tokens.size(), "tokens");
  for (std::int64_t first = 0; first < chunks.n_chunks; first += batch) {
    context.check_cancelled();
    const std::int64_t n = std::min(batch, chunks.n_chunks - first);
    const StateKeeper truth = run(context, reference, chunks, first, n);
    const StateKeeper other = run(context, candidate, chunks, first, n);
    context.pool.parallel_dynamic(static_cast<std::int64_t>(n_states), [&](std::int64_t index) {
      const auto state = static_cast<std::size_t>(index);
      for (std::size_t at = 0; at < truth.states()[state].size(); at += static_cast<std::size_t>(spec.hidden)) {
        sums[state].add_token(&truth.states()[state][at], &other.states()[state][at], spec.hidden);
      }
    });
    progress.add(static_cast<std::uint64_t>(n * chunks.context));
  }
  std::vector<LayerError> errors;
  for (std::size_t i = 0; i < n_states; ++i) errors.push_back(to_error(static_cast<int>(i) - 1, sums[i]));
  return errors;
}

json::Value to_json(const std::vector<LayerError>& errors) {
  json::Array array;
  for (const LayerError& error : errors) {
    json::Value item;
    item.set("layer", error.layer);
    item.set("relative_error", error.relative_error);
    item.set("mean_token_error", error.mean_token_error);
    item.set("cosine", error.cosine);
    array.push_back(std::move(item));
  }
  return array;
}

std::string to_table(const std::vector<LayerError>& errors) {
  std::string table =
      format_text("{:<10} {:>14} {:>16} {:>11}\n", "after", "relative error", "mean over tokens", "cosine");
  for (const LayerError& error : errors) {
    const std::string name = error.layer < 0 ? std::string("embedding") : format_text("block {}", error.layer);
    table += format_text("{:<10} {:>14.6f} {:>16.6f} {:>11.8f}\n", name, error.relative_error, error.mean_token_error,
                         error.cosine);
  }
  return table;
}

}  // namespace nibble::eval
