#include "train/decoder_graph.h"

#include <cmath>

#include "base/error.h"
#include "model/rope.h"

namespace nibble::train {

using model::BlockSpec;
using model::Role;

template <typename Real>
DecoderGraph<Real>::DecoderGraph(const model::ModelSpec& spec) : spec_(spec) {
  if (spec.positions == model::Positions::kAlibi) slopes_ = model::alibi_slopes(spec);
}

template <typename Real>
Var DecoderGraph<Real>::norm(Tape<Real>& tape, GraphWeights<Real>& weights, Role role, int layer, Var x,
                             std::int64_t width) {
  const Var weight = weights.tensor(tape, role, layer);
  if (!weight) return x;
  const NormShape shape = {width > 0 ? width : tape.cols(x), spec_.norm_eps, spec_.norm_add_one};
  if (spec_.norm == model::NormKind::kRms) return rms_norm(tape, x, weight, shape);
  return layer_norm(tape, x, weight, weights.tensor(tape, role, layer, true), shape);
}

template <typename Real>
Var DecoderGraph<Real>::embed(Tape<Real>& tape, GraphWeights<Real>& weights, std::span<const token::TokenId> tokens,
                              const Sequences& sequences) {
  for (const token::TokenId token : tokens) {
    if (token < 0 || token >= spec_.vocab)
      fail(ErrorCode::kInvalidArgument, "token {} is outside the model's vocabulary of {}", token, spec_.vocab);
  }
  Var x = embedding(tape, weights.tensor(tape, Role::kTokenEmbedding, -1), {tokens.begin(), tokens.end()});
  if (spec_.embedding_scale != 1) x = scale(tape, x, spec_.embedding_scale);
  if (spec_.embedding_size() != spec_.hidden) x = weights.linear(tape, Role::kEmbeddingIn, -1, x);
  const Var positions = weights.tensor(tape, Role::kPositionEmbedding, -1);
  if (!positions) return x;
  if (sequences.length + spec_.position_offset > tape.rows(positions))
    fail(ErrorCode::kInvalidArgument, "sequences of {} tokens, but the model has {} positions", sequences.length,
         tape.rows(positions) - spec_.position_offset);
  std::vector<token::TokenId> at;
  for (std::int64_t i = 0; i < sequences.rows(); ++i)
    at.push_back(static_cast<token::TokenId>(i % sequences.length + spec_.position_offset));
  return add(tape, x, embedding(tape, positions, std::move(at)));
}

template <typename Real>
Var DecoderGraph<Real>::finish_half(Tape<Real>& tape, GraphWeights<Real>& weights, Role post_norm, int layer, Var x,
                                    Var out) {
  const bool norm_sums = spec_.blocks[static_cast<std::size_t>(layer)].norm_sums;
  if (!norm_sums) out = norm(tape, weights, post_norm, layer, out);
  const Var sum = combine(tape, 1, x, spec_.residual_scale, out);
  return norm_sums ? norm(tape, weights, post_norm, layer, sum) : sum;
}

template <typename Real>
Var DecoderGraph<Real>::attention_half(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var x,
                                       const Sequences& sequences) {
  const Var normed = norm(tape, weights, Role::kAttnNorm, layer, x);
  return finish_half(tape, weights, Role::kAttnPostNorm, layer, x, attend(tape, weights, layer, normed, sequences));
}

template <typename Real>
Var DecoderGraph<Real>::feed_forward_half(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var x) {
  const Var normed = norm(tape, weights, Role::kFfnNorm, layer, x);
  return finish_half(tape, weights, Role::kFfnPostNorm, layer, x, feed_forward(tape, weights, layer, normed));
}

template <typename Real>
Var DecoderGraph<Real>::block(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var x,
                              const Sequences& sequences) {
  const BlockSpec& spec = spec_.blocks[static_cast<std::size_t>(layer)];
  if (!spec.parallel) {
    return feed_forward_half(tape, weights, layer, attention_half(tape, weights, layer, x, sequences));
  }
  const Var normed = norm(tape, weights, Role::kAttnNorm, layer, x);
  const Var other = spec.ffn_norm ? norm(tape, weights, Role::kFfnNorm, layer, x) : normed;
  const Var attended = norm(tape, weights, Role::kAttnPostNorm, layer, attend(tape, weights, layer, normed, sequences));
  const Var with_attention = combine(tape, 1, x, spec_.residual_scale, attended);
  return finish_half(tape, weights, Role::kFfnPostNorm, layer, with_attention,
                     feed_forward(tape, weights, layer, other));
}

template <typename Real>
Var DecoderGraph<Real>::mix_online(Tape<Real>& tape, Var x) {
  if (!spec_.online_rotation) return x;
  std::unique_ptr<linalg::Mixer>& mixer = mixers_[tape.cols(x)];
  if (mixer == nullptr) mixer = std::make_unique<linalg::Mixer>(tape.cols(x), 0);
  return mix(tape, x, *mixer);
}

template <typename Real>
Var DecoderGraph<Real>::feed_forward(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var normed) {
  const BlockSpec& spec = spec_.blocks[static_cast<std::size_t>(layer)];
  if (spec.experts.count > 0) return experts(tape, weights, layer, normed);
  Var inner;
  if (!spec.gated) {
    inner = activate(tape, weights.linear(tape, Role::kFfnUp, layer, normed), spec.activation);
  } else if (spec.gate_up_fused) {
    const Var both = weights.linear(tape, Role::kFfnGateUp, layer, normed);
    const Var first = columns(tape, both, 0, spec.ffn);
    inner = gate(tape, first, columns(tape, both, spec.ffn, spec.ffn), spec.activation);
  } else {
    const Var first = weights.linear(tape, Role::kFfnGate, layer, normed);
    inner = gate(tape, first, weights.linear(tape, Role::kFfnUp, layer, normed), spec.activation);
  }
  return weights.linear(tape, Role::kFfnDown, layer, mix_online(tape, inner));
}

template <typename Real>
Var DecoderGraph<Real>::head_input(Tape<Real>& tape, GraphWeights<Real>& weights, Var x) {
  x = norm(tape, weights, Role::kOutputNorm, -1, x);
  if (spec_.embedding_size() != spec_.hidden) x = weights.linear(tape, Role::kEmbeddingOut, -1, x);
  return x;
}

template <typename Real>
Var DecoderGraph<Real>::logits(Tape<Real>& tape, GraphWeights<Real>& weights, Var x) {
  Var out = weights.linear(tape, Role::kOutput, -1, x);
  if (spec_.logit_scale != 1) out = scale(tape, out, spec_.logit_scale);
  if (spec_.logit_softcap != 0) out = softcap(tape, out, spec_.logit_softcap);
  return out;
}

template class DecoderGraph<float>;
template class DecoderGraph<double>;

}  // namespace nibble::train
