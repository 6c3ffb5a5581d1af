// The decoder that a ModelSpec describes, as nodes of a tape: all options that the engine knows, so that what is
// trained is what runs.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>

#include "model/model_spec.h"
#include "train/nodes.h"

namespace nibble::train {

// How the graph gets at its weights: plain ones, ones that are rounded on the way, ones with a low-rank part.
template <typename Real>
class GraphWeights {
 public:
  virtual ~GraphWeights() = default;
  // x (n, in) times the linear of that role plus its bias, if it has one, (n, out); of a stack its matrix `index`.
  virtual Var linear(Tape<Real>& tape, model::Role role, int layer, Var x, std::int64_t index = 0) = 0;
  // Any tensor as it is, (rows, cols); vectors are (1, n). Invalid where the model has none.
  virtual Var tensor(Tape<Real>& tape, model::Role role, int layer, bool bias = false) = 0;
};

// Sequences of `length` tokens one behind the other, each from position 0 on.
struct Sequences {
  std::int64_t count = 0, length = 0;
  std::int64_t rows() const { return count * length; }
};

template <typename Real>
class DecoderGraph {
 public:
  // `spec` must outlive this.
  explicit DecoderGraph(const model::ModelSpec& spec);

  // (rows, hidden). Throws Error{kInvalidArgument} for a token outside the vocabulary or a length beyond the model's
  // learned positions.
  Var embed(Tape<Real>& tape, GraphWeights<Real>& weights, std::span<const token::TokenId> tokens,
            const Sequences& sequences);
  Var block(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var x, const Sequences& sequences);
  // The halves of a block that is not parallel.
  Var attention_half(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var x, const Sequences& sequences);
  Var feed_forward_half(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var x);
  // The states behind the last block as the head takes them, and what it makes of them, (rows, vocab).
  Var head_input(Tape<Real>& tape, GraphWeights<Real>& weights, Var x);
  Var logits(Tape<Real>& tape, GraphWeights<Real>& weights, Var x);

  const model::ModelSpec& spec() const { return spec_; }

 private:
  Var norm(Tape<Real>& tape, GraphWeights<Real>& weights, model::Role role, int layer, Var x, std::int64_t width = 0);
  Var finish_half(Tape<Real>& tape, GraphWeights<Real>& weights, model::Role post_norm, int layer, Var x, Var out);
  // What a half adds to the stream, of its normed input.
  Var attend(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var normed, const Sequences& sequences);
  Var feed_forward(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var normed);
  struct Queries {
    Var q, k, v;
  };
  Queries project(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var normed);
  Queries project_latent(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var normed,
                         const Sequences& sequences);
  Var finish_heads(Tape<Real>& tape, GraphWeights<Real>& weights, model::Role norm_role, int layer, Var x,
                   const Sequences& sequences);
  Var rotate(Tape<Real>& tape, const model::BlockSpec& block, Var x, std::int64_t head_dim, std::int64_t length);
  // Each head's part of x times its matrix of the stack.
  Var per_head(Tape<Real>& tape, GraphWeights<Real>& weights, model::Role role, int layer, Var x, std::int64_t width);
  Var experts(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var normed);
  Var shared_expert(Tape<Real>& tape, GraphWeights<Real>& weights, int layer, Var normed);
  const RopeTable<Real>& rope_table(bool local, std::int64_t length);
  Var mix_online(Tape<Real>& tape, Var x);

  const model::ModelSpec& spec_;
  std::map<std::pair<bool, std::int64_t>, RopeTable<Real>> ropes_;
  std::map<std::int64_t, std::unique_ptr<linalg::Mixer>> mixers_;  // by size
  std::vector<float> slopes_;                                      // ALiBi
};

// The experts of each token, by (n, count) scores, as the engine chooses them, and their weights as a node.
struct Routing {
  std::vector<std::int64_t> experts;  // (n, used), ascending in a row
  Var weights;                        // (n, used)
};
template <typename Real>
Routing route(Tape<Real>& tape, Var scores, const model::ExpertSpec& spec, std::span<const float> bias);

extern template class DecoderGraph<float>;
extern template class DecoderGraph<double>;

}  // namespace nibble::train
