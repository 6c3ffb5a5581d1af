#include <cmath>

#include "model/rope.h"
#include "train/decoder_graph.h"

namespace nibble::train {

using model::BlockRope;
using model::BlockSpec;
using model::QkNorm;
using model::Role;

template <typename Real>
const RopeTable<Real>& DecoderGraph<Real>::rope_table(bool local, std::int64_t length) {
  const auto [at, is_new] = ropes_.try_emplace({local, length});
  RopeTable<Real>& table = at->second;
  if (!is_new) return table;
  const model::RopeSpec& rope = local ? spec_.local_rope : spec_.rope;
  const model::RopeFrequencies frequencies = model::rope_frequencies(rope, length);
  table.length = length;
  table.pairs = rope.dims / 2;
  for (std::int64_t position = 0; position < length; ++position) {
    for (std::int64_t j = 0; j < table.pairs; ++j) {
      const float angle = static_cast<float>(position) * frequencies.inv_freq[static_cast<std::size_t>(j)];
      table.cos.push_back(static_cast<Real>(std::cos(angle) * frequencies.attention_factor));
      table.sin.push_back(static_cast<Real>(std::sin(angle) * frequencies.attention_factor));
    }
  }
  return table;
}

template <typename Real>
Var DecoderGraph<Real>::rotate(Tape<Real>& tape, const BlockSpec& block, Var x, std::int64_t head_dim,
                               std::int64_t length) {
  if (spec_.positions != model::Positions::kRotary || block.rope == BlockRope::kNone) return x;
  return rope(tape, x, head_dim, rope_table(block.rope == BlockRope::kLocal, length));
}

// Norm and rotation of queries or keys.
template <typename Real>
Var DecoderGraph<Real>::finish_heads(Tape<Real>& tape, GraphWeights<Real>& weights, Role norm_role, int layer, Var x,
                                     const Sequences& sequences) {
  const BlockSpec& spec = spec_.blocks[static_cast<std::size_t>(layer)];
  if (spec.qk_norm == QkNorm::kWhole) x = norm(tape, weights, norm_role, layer, x);
  if (spec.qk_norm == QkNorm::kPerHead) x = norm(tape, weights, norm_role, layer, x, spec.head_dim);
  if (spec.qk_norm == QkNorm::kPerHeadOwn) {
    // A vector of each head's own, one behind the other.
    x = norm(tape, weights, norm_role, layer, x, spec.head_dim);
  }
  x = rotate(tape, spec, x, spec.head_dim, sequences.length);
  const NormShape shape = {spec.head_dim, spec_.norm_eps, false};
  return spec.qk_norm == QkNorm::kAfterRope ? rms_norm(tape, x, Var{}, shape) : x;
}

template <typename Real>
typename DecoderGraph<Real>::Queries DecoderGraph<Real>::project(Tape<Real>& tape, GraphWeights<Real>& weights,
                                                                 int layer, Var normed) {
  const BlockSpec& spec = spec_.blocks[static_cast<std::size_t>(layer)];
  if (!spec.qkv_fused) {
    return {weights.linear(tape, Role::kAttnQ, layer, normed), weights.linear(tape, Role::kAttnK, layer, normed),
            weights.linear(tape, Role::kAttnV, layer, normed)};
  }
  const Var all = weights.linear(tape, Role::kAttnQkv, layer, normed);
  const std::int64_t q = std::int64_t{spec.n_heads} * spec.head_dim, kv = std::int64_t{spec.n_kv_heads} * spec.head_dim;
  return {columns(tape, all, 0, q), columns(tape, all, q, kv), columns(tape, all, q + kv, kv)};
}

template <typename Real>
Var DecoderGraph<Real>::per_head(Tape<Real>& tape, GraphWeights<Real>& weights, Role role, int layer, Var x,
                                 std::int64_t width) {
  std::vector<Var> heads;
  for (std::int64_t h = 0; h * width < tape.cols(x); ++h)
    heads.push_back(weights.linear(tape, role, layer, columns(tape, x, h * width, width), h));
  return beside<Real>(tape, heads);
}

// Latent attention as the engine has it (model/forward_latent.cpp): one key/value head of (rotated part, latent).
template <typename Real>
typename DecoderGraph<Real>::Queries DecoderGraph<Real>::project_latent(Tape<Real>& tape, GraphWeights<Real>& weights,
                                                                        int layer, Var normed,
                                                                        const Sequences& sequences) {
  const BlockSpec& spec = spec_.blocks[static_cast<std::size_t>(layer)];
  const std::int64_t rank = spec.latent.kv_rank, rotated = spec.head_dim - rank, plain = spec.latent.plain;
  const std::int64_t query = plain + rotated;
  Var q;
  if (spec.latent.q_rank > 0) {
    const Var latent = weights.linear(tape, Role::kAttnQA, layer, normed);
    q = weights.linear(tape, Role::kAttnQB, layer, norm(tape, weights, Role::kAttnQANorm, layer, latent));
  } else {
    q = weights.linear(tape, Role::kAttnQ, layer, normed);
  }
  const Var kv = weights.linear(tape, Role::kAttnKvA, layer, normed);  // (latent, rotated part)
  const Var latent = norm(tape, weights, Role::kAttnKvANorm, layer, columns(tape, kv, 0, rank));
  const Var key = rotate(tape, spec, columns(tape, kv, rank, rotated), rotated, sequences.length);
  std::vector<Var> parts;
  for (std::int64_t h = 0; h < spec.n_heads; ++h) {
    const Var turned = columns(tape, q, h * query + plain, rotated);
    parts.push_back(rotate(tape, spec, turned, rotated, sequences.length));
    parts.push_back(weights.linear(tape, Role::kAttnKB, layer, columns(tape, q, h * query, plain), h));
  }
  const Var keys[] = {key, latent};
  return {beside<Real>(tape, parts), beside<Real>(tape, keys), latent};
}

template <typename Real>
Var DecoderGraph<Real>::attend(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var normed,
                               const Sequences& sequences) {
  const BlockSpec& spec = spec_.blocks[static_cast<std::size_t>(layer)];
  const bool latent = spec.latent.kv_rank > 0;
  Queries at = latent ? project_latent(tape, weights, layer, normed, sequences) : project(tape, weights, layer, normed);
  if (!latent) {
    at.q = finish_heads(tape, weights, Role::kAttnQNorm, layer, at.q, sequences);
    at.k = finish_heads(tape, weights, Role::kAttnKNorm, layer, at.k, sequences);
  }
  if (model::has_query_temperature(spec_, spec)) {
    std::vector<Real> factors;
    for (std::int64_t row = 0; row < sequences.rows(); ++row)
      factors.push_back(static_cast<Real>(model::query_temperature(spec_, row % sequences.length)));
    at.q = scale_rows(tape, at.q, std::move(factors));
  }
  AttentionShape shape;
  shape.length = sequences.length;
  shape.heads = spec.n_heads;
  shape.kv_heads = spec.n_kv_heads;
  shape.dim = spec.head_dim;
  shape.value_dim = latent ? spec.latent.kv_rank : spec.head_dim;
  shape.scale = spec_.attention_scale > 0 ? spec_.attention_scale : 1 / std::sqrt(static_cast<double>(spec.head_dim));
  shape.window = spec.window;
  shape.chunked = spec.chunked;
  shape.softcap = spec_.attention_softcap;
  shape.slopes = slopes_;
  Var out = attention(tape, at.q, at.k, at.v, weights.tensor(tape, Role::kAttnSinks, layer), shape);
  if (latent) out = per_head(tape, weights, Role::kAttnVB, layer, out, spec.latent.kv_rank);
  return weights.linear(tape, Role::kAttnOutput, layer, mix_online(tape, out));
}

#define NIBBLE_INSTANTIATE(Real)                                                                                      \
  template const RopeTable<Real>& DecoderGraph<Real>::rope_table(bool, std::int64_t);                                 \
  template Var DecoderGraph<Real>::rotate(Tape<Real>&, const BlockSpec&, Var, std::int64_t, std::int64_t);            \
  template Var DecoderGraph<Real>::finish_heads(Tape<Real>&, GraphWeights<Real>&, Role, int, Var, const Sequences&);  \
  template DecoderGraph<Real>::Queries DecoderGraph<Real>::project(Tape<Real>&, GraphWeights<Real>&, int, Var);       \
  template Var DecoderGraph<Real>::per_head(Tape<Real>&, GraphWeights<Real>&, Role, int, Var, std::int64_t);          \
  template DecoderGraph<Real>::Queries DecoderGraph<Real>::project_latent(Tape<Real>&, GraphWeights<Real>&, int, Var, \
                                                                          const Sequences&);                          \
  template Var DecoderGraph<Real>::attend(Tape<Real>&, GraphWeights<Real>&, int, Var, const Sequences&);
NIBBLE_INSTANTIATE(float)
NIBBLE_INSTANTIATE(double)
#undef NIBBLE_INSTANTIATE

}  // namespace nibble::train
