#include "train/language_loss.h"

#include <algorithm>

namespace nibble::train {

namespace {

// The states before the head, computed block by block without a way back.
template <typename Real>
std::vector<Real> head_states(Tape<Real>& tape, DecoderGraph<Real>& graph, GraphWeights<Real>& weights,
                              const TokenBatch& batch) {
  std::vector<Real> states;
  const auto keep = [&states](const Tape<Real>& part, Var x) {
    states.assign(part.value(x), part.value(x) + part.size(x));
  };
  const auto next = [&](auto&& body) {
    const std::unique_ptr<Tape<Real>> part = tape.nested();
    const std::int64_t rows = batch.sequences.rows();
    const Var x =
        states.empty() ? Var{} : part->constant(rows, static_cast<std::int64_t>(states.size()) / rows, states.data());
    keep(*part, body(*part, x));
  };
  next([&](Tape<Real>& part, Var) { return graph.embed(part, weights, batch.tokens, batch.sequences); });
  for (int layer = 0; layer < graph.spec().n_layers(); ++layer)
    next([&](Tape<Real>& part, Var x) { return graph.block(part, weights, layer, x, batch.sequences); });
  next([&](Tape<Real>& part, Var x) { return graph.head_input(part, weights, x); });
  return states;
}

// What the head makes of rows [begin, ...) against the labels and, if there is one, the teacher.
template <typename Real>
class HeadLoss {
 public:
  HeadLoss(DecoderGraph<Real>& graph, GraphWeights<Real>& weights, const TokenBatch& batch, double divisor,
           const LossOptions<Real>& options, std::vector<Real> teacher_states)
      : graph_(graph),
        weights_(weights),
        batch_(batch),
        divisor_(divisor),
        options_(options),
        teacher_states_(std::move(teacher_states)) {}

  Var operator()(Tape<Real>& tape, Var x, std::int64_t begin) {
    const std::int64_t n = tape.rows(x), length = batch_.sequences.length;
    std::vector<token::TokenId> labels(static_cast<std::size_t>(n));
    std::vector<Real> counted(labels.size());
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t row = begin + i;
      if (row % length + 1 == length) continue;
      const auto label = static_cast<std::size_t>(row + 1), at = static_cast<std::size_t>(i);
      labels[at] = batch_.tokens[label];
      counted[at] = static_cast<Real>(batch_.learned[label] != 0 ? 1 : 0);
    }
    const Var logits = graph_.logits(tape, weights_, x);
    const double share = options_.teacher == nullptr ? 0 : options_.teacher_share;
    if (share == 0) {
      const Var loss = cross_entropy(tape, logits, std::move(labels), scaled(counted, 1 / divisor_));
      sums.cross_entropy += static_cast<double>(*tape.value(loss)) * divisor_;
      return loss;
    }
    // Losses use their logits up: each takes a copy, the one that is only reported of its own without a way back.
    std::vector<Real> teacher = teacher_logits(tape, begin, n);
    const Var copy = share < 1 ? reshape(tape, logits, n, tape.cols(logits))
                               : tape.constant(n, tape.cols(logits), keep_values(tape, logits));
    const Var entropy =
        cross_entropy(tape, copy, std::move(labels), scaled(counted, (share < 1 ? 1 - share : 1) / divisor_));
    sums.cross_entropy += static_cast<double>(*tape.value(entropy)) * divisor_ / (share < 1 ? 1 - share : 1);
    const Var apart = kl_divergence(tape, logits, teacher.data(), scaled(counted, share / divisor_));
    sums.divergence += static_cast<double>(*tape.value(apart)) * divisor_ / share;
    return share < 1 ? add_losses(tape, entropy, apart) : apart;
  }

  LossSums sums;

 private:
  std::vector<Real> scaled(const std::vector<Real>& counted, double factor) const {
    std::vector<Real> out = counted;
    for (Real& weight : out) weight *= static_cast<Real>(factor);
    return out;
  }
  const Real* keep_values(const Tape<Real>& tape, Var x) {
    kept_.assign(tape.value(x), tape.value(x) + tape.size(x));
    return kept_.data();
  }
  std::vector<Real> teacher_logits(const Tape<Real>& tape, std::int64_t begin, std::int64_t n) {
    const std::unique_ptr<Tape<Real>> part = tape.nested();
    const std::int64_t width = static_cast<std::int64_t>(teacher_states_.size()) / batch_.sequences.rows();
    const Var x = part->constant(n, width, teacher_states_.data() + begin * width);
    const Var logits = graph_.logits(*part, *options_.teacher, x);
    return {part->value(logits), part->value(logits) + part->size(logits)};
  }

  DecoderGraph<Real>& graph_;
  GraphWeights<Real>& weights_;
  const TokenBatch& batch_;
  double divisor_;
  const LossOptions<Real>& options_;
  std::vector<Real> teacher_states_;
  std::vector<Real> kept_;
};

template <typename Real>
std::vector<Real> teacher_states(Tape<Real>& tape, DecoderGraph<Real>& graph, const TokenBatch& batch,
                                 const LossOptions<Real>& options) {
  if (options.teacher == nullptr) return {};
  return head_states(tape, graph, *options.teacher, batch);
}

}  // namespace

std::int64_t TokenBatch::predictions() const {
  std::int64_t n = 0;
  for (std::int64_t i = 0; i < sequences.rows(); ++i) {
    if (i % sequences.length != 0 && learned[static_cast<std::size_t>(i)] != 0) ++n;
  }
  return n;
}

template <typename Real>
LossSums add_gradients(Tape<Real>& tape, DecoderGraph<Real>& graph, GraphWeights<Real>& weights,
                       const TokenBatch& batch, double divisor, const LossOptions<Real>& options) {
  HeadLoss<Real> head(graph, weights, batch, divisor, options, teacher_states(tape, graph, batch, options));
  Var x = graph.embed(tape, weights, batch.tokens, batch.sequences);
  for (int layer = 0; layer < graph.spec().n_layers(); ++layer) {
    tape.context().check_cancelled();
    const auto body = [&graph, &weights, &batch, layer](Tape<Real>& part, Var in) {
      return graph.block(part, weights, layer, in, batch.sequences);
    };
    x = options.checkpoint ? checkpoint<Real>(tape, x, body) : body(tape, x);
  }
  x = graph.head_input(tape, weights, x);
  const Var loss = loss_in_parts<Real>(tape, x, options.part_rows, std::ref(head));
  head.sums.loss = static_cast<double>(*tape.value(loss)) * divisor;
  tape.backward(loss);
  tape.clear();
  return head.sums;
}

template <typename Real>
LossSums loss_of(Tape<Real>& tape, DecoderGraph<Real>& graph, GraphWeights<Real>& weights, const TokenBatch& batch,
                 const LossOptions<Real>& options) {
  HeadLoss<Real> head(graph, weights, batch, 1, options, teacher_states(tape, graph, batch, options));
  const std::vector<Real> states = head_states(tape, graph, weights, batch);
  const std::int64_t rows = batch.sequences.rows(), width = static_cast<std::int64_t>(states.size()) / rows;
  for (std::int64_t begin = 0; begin < rows; begin += options.part_rows) {
    const std::unique_ptr<Tape<Real>> part = tape.nested();
    const std::int64_t n = std::min(options.part_rows, rows - begin);
    const Var loss = head(*part, part->constant(n, width, states.data() + begin * width), begin);
    head.sums.loss += static_cast<double>(*part->value(loss));
  }
  return head.sums;
}

#define NIBBLE_INSTANTIATE(Real)                                                                                    \
  template LossSums add_gradients(Tape<Real>&, DecoderGraph<Real>&, GraphWeights<Real>&, const TokenBatch&, double, \
                                  const LossOptions<Real>&);                                                        \
  template LossSums loss_of(Tape<Real>&, DecoderGraph<Real>&, GraphWeights<Real>&, const TokenBatch&,               \
                            const LossOptions<Real>&);
NIBBLE_INSTANTIATE(float)
NIBBLE_INSTANTIATE(double)
#undef NIBBLE_INSTANTIATE

}  // namespace nibble::train
