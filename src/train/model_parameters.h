// All weights of a model as parameters, and as what the graph multiplies by.
#pragma once

#include <memory>
#include <vector>

#include "model/source.h"
#include "train/decoder_graph.h"

namespace nibble::train {

template <typename Real>
class ModelParameters : public GraphWeights<Real> {
 public:
  // The numbers of a model on disk, decoded, a parameter per slot of its spec. Throws Error{kFormat} naming a tensor
  // with a NaN or an infinity. `spec`, of this or the source, must outlive it.
  // With `layer` only the weights of that block.
  static constexpr int kAllLayers = -2;
  explicit ModelParameters(const model::ModelSource& source, int layer = kAllLayers);
  // Drawn anew: matrices normal with a standard deviation of 0.02, those that write to the residual stream less by
  // the root of twice the blocks (GPT-2's rule), norms neutral, biases 0.
  ModelParameters(const model::ModelSpec& spec, std::uint64_t seed);

  Var linear(Tape<Real>& tape, model::Role role, int layer, Var x, std::int64_t index = 0) override;
  Var tensor(Tape<Real>& tape, model::Role role, int layer, bool bias = false) override;

  const model::ModelSpec& spec() const { return spec_; }
  std::size_t size() const { return parameters_.size(); }
  // By slot of spec().weights; not of one that was left out.
  BasicParameter<Real>& at(std::size_t slot) { return *parameters_[slot]; }
  const BasicParameter<Real>& at(std::size_t slot) const { return *parameters_[slot]; }
  // Those that are trained: with a gradient. `freeze` takes it away.
  std::vector<BasicParameter<Real>*> trained();
  void freeze(std::size_t slot) { parameters_[slot]->gradient = {}; }
  void freeze_all();
  bool has(std::size_t slot) const { return parameters_[slot] != nullptr; }
  // Frees the numbers of a slot, which then is asked for no more.
  void leave_out(std::size_t slot) { parameters_[slot] = nullptr; }
  // y plus the bias of a linear, if it has one; `index` as in linear().
  Var add_bias_of(Tape<Real>& tape, model::Role role, int layer, Var y, std::int64_t index);

  // The slot of a role, or kNone; the head's is the embedding where they are tied.
  static constexpr std::size_t kNone = ~std::size_t{0};
  std::size_t find(model::Role role, int layer, bool bias = false) const;

 private:
  void add(const model::WeightSlot& slot);
  // Matrix `index` of a stack, or all of anything else.
  Var part(Tape<Real>& tape, std::size_t slot, std::int64_t rows, std::int64_t cols, std::int64_t index);
  const model::ModelSpec& spec_;
  std::vector<std::unique_ptr<BasicParameter<Real>>> parameters_;
};

// The numbers of a parameter as a tensor of that shape in f32.
Tensor as_f32(const Parameter& parameter, const Shape& shape);
// The slot that a linear's weight comes from: that of the role; of a tied head the embedding.
std::size_t slot_of(const model::ModelSpec& spec, model::Role role, int layer, bool bias = false);

extern template class ModelParameters<float>;
extern template class ModelParameters<double>;

}  // namespace nibble::train
