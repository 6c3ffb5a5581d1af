#include <algorithm>
#include <cmath>

#include "model/expert_choice.h"
#include "train/decoder_graph.h"

namespace nibble::train {

using model::ExpertSpec;
using model::Role;
using model::Scoring;

namespace {

// Of one token: the weights of the chosen and the way back. Shares are a softmax over all scores or, renormalized, over
// the chosen; or sigmoids, which may be renormalized, too.
class RowWeights {
 public:
  RowWeights(const ExpertSpec& spec, const double* scores, const std::int64_t* chosen)
      : spec_(spec), chosen_(chosen), shares_(static_cast<std::size_t>(spec.count)) {
    const bool all = spec.scoring == Scoring::kSoftmax && !spec.renormalize;
    double most = scores[chosen[0]];
    for (int i = 0; i < spec.used; ++i) most = std::max(most, scores[chosen[i]]);
    const auto share = [&](std::int64_t e) {
      return spec.scoring == Scoring::kSigmoid ? 1 / (1 + std::exp(-scores[e])) : std::exp(scores[e] - most);
    };
    if (all) {
      for (std::int64_t e = 0; e < spec.count; ++e) shares_[static_cast<std::size_t>(e)] = share(e);
    } else {
      for (int i = 0; i < spec.used; ++i) shares_[static_cast<std::size_t>(chosen[i])] = share(chosen[i]);
    }
    sum_ = spec.scoring == Scoring::kSigmoid && !spec.renormalize ? 1 : 0;
    if (sum_ == 0) {
      for (const double value : shares_) sum_ += value;
    }
  }
  double weight(int i) const { return shares_[static_cast<std::size_t>(chosen_[i])] / sum_ * spec_.scale; }
  // Gradient of score e, of those of the weights.
  double back(std::int64_t e, const double* dweights) const {
    const double share = shares_[static_cast<std::size_t>(e)];
    if (share == 0) return 0;
    const bool fixed_sum = spec_.scoring == Scoring::kSigmoid && !spec_.renormalize;
    double own = 0, along = 0;  // of its weight; of all through the sum
    for (int i = 0; i < spec_.used; ++i) {
      if (chosen_[i] == e) own = dweights[i];
      if (!fixed_sum) along += dweights[i] * shares_[static_cast<std::size_t>(chosen_[i])] / sum_;
    }
    const double dshare = (own - along) * spec_.scale / sum_;
    return dshare * share * (spec_.scoring == Scoring::kSigmoid ? 1 - share : 1);
  }

 private:
  const ExpertSpec& spec_;
  const std::int64_t* chosen_;
  std::vector<double> shares_;  // 0: takes no part
  double sum_ = 0;
};

template <typename Real>
std::vector<double> row_of(const Real* from, std::int64_t n) {
  return std::vector<double>(from, from + n);
}

}  // namespace

template <typename Real>
Routing route(Tape<Real>& tape, Var scores, const ExpertSpec& spec, std::span<const float> bias) {
  const std::int64_t n = tape.rows(scores), count = spec.count, used = spec.used;
  auto chosen = std::make_shared<std::vector<std::int64_t>>();
  const Var weights = tape.make(n, used, {scores});
  model::ExpertChoice choice(spec, bias);
  for (std::int64_t row = 0; row < n; ++row) {
    const std::vector<double> score = row_of(tape.value(scores) + row * count, count);
    const std::vector<float> narrow(score.begin(), score.end());
    for (const std::size_t expert : choice.choose(narrow.data())) chosen->push_back(static_cast<std::int64_t>(expert));
    const RowWeights at(spec, score.data(), chosen->data() + row * used);
    for (int i = 0; i < used; ++i) tape.mutable_value(weights)[row * used + i] = static_cast<Real>(at.weight(i));
  }
  Routing routing = {*chosen, weights};
  tape.on_backward(weights, [&tape, &spec, scores, weights, chosen, n, count, used] {
    const Real* dweights = tape.gradient(weights);
    Real* dscores = tape.gradient(scores);
    for (std::int64_t row = 0; row < n; ++row) {
      const std::vector<double> score = row_of(tape.value(scores) + row * count, count);
      const std::vector<double> d = row_of(dweights + row * used, used);
      const RowWeights at(spec, score.data(), chosen->data() + row * used);
      for (std::int64_t e = 0; e < count; ++e) dscores[row * count + e] += static_cast<Real>(at.back(e, d.data()));
    }
  });
  return routing;
}

// Tokens sorted by expert; each expert sees its own as one batch.
template <typename Real>
Var DecoderGraph<Real>::experts(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var normed) {
  const model::BlockSpec& block = spec_.blocks[static_cast<std::size_t>(layer)];
  const ExpertSpec& spec = block.experts;
  const std::int64_t n = tape.rows(normed), used = spec.used;
  std::vector<float> bias;
  if (const Var from = weights.tensor(tape, Role::kRouterBias, layer, true))
    bias.assign(tape.value(from), tape.value(from) + spec.count);
  const Routing routing = route(tape, weights.linear(tape, Role::kRouter, layer, normed), spec, bias);
  const Var flat = reshape(tape, routing.weights, n * used, 1);
  std::vector<Var> outputs;
  std::vector<std::int64_t> to;  // the token of each row of them
  for (std::int64_t e = 0; e < spec.count; ++e) {
    std::vector<std::int64_t> tokens, places;
    for (std::int64_t i = 0; i < n * used; ++i) {
      if (routing.experts[static_cast<std::size_t>(i)] != e) continue;
      tokens.push_back(i / used);
      places.push_back(i);
    }
    if (tokens.empty()) continue;
    to.insert(to.end(), tokens.begin(), tokens.end());
    const Var share = gather_rows(tape, flat, std::move(places));
    Var x = gather_rows(tape, normed, std::move(tokens));
    if (spec.weigh_inputs) x = multiply_rows(tape, x, share);
    const Var first = weights.linear(tape, Role::kExpertGate, layer, x, e);
    const Var inner = gate(tape, first, weights.linear(tape, Role::kExpertUp, layer, x, e), block.activation);
    const Var out = weights.linear(tape, Role::kExpertDown, layer, inner, e);
    outputs.push_back(spec.weigh_inputs ? out : multiply_rows(tape, out, share));
  }
  const Var routed = scatter_rows(tape, stack<Real>(tape, outputs), std::move(to), n);
  return spec.shared > 0 ? add(tape, routed, shared_expert(tape, weights, layer, normed)) : routed;
}

template <typename Real>
Var DecoderGraph<Real>::shared_expert(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var normed) {
  const model::BlockSpec& block = spec_.blocks[static_cast<std::size_t>(layer)];
  const Var first = weights.linear(tape, Role::kSharedGate, layer, normed);
  const Var inner = gate(tape, first, weights.linear(tape, Role::kSharedUp, layer, normed), block.activation);
  const Var out = weights.linear(tape, Role::kSharedDown, layer, inner);
  const Var scale = weights.tensor(tape, Role::kSharedScale, layer);
  return scale ? multiply_rows(tape, out, sigmoid(tape, matmul(tape, normed, scale))) : out;
}

#define NIBBLE_INSTANTIATE(Real)                                                        \
  template Routing route(Tape<Real>&, Var, const ExpertSpec&, std::span<const float>);  \
  template Var DecoderGraph<Real>::experts(Tape<Real>&, GraphWeights<Real>&, int, Var); \
  template Var DecoderGraph<Real>::shared_expert(Tape<Real>&, GraphWeights<Real>&, int, Var);
NIBBLE_INSTANTIATE(float)
NIBBLE_INSTANTIATE(double)
#undef NIBBLE_INSTANTIATE

}  // namespace nibble::train
