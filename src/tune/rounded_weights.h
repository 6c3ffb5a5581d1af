// The weights of a graph of which some are trained in the encoding they will have, and their inputs rounded as they
// will be.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "train/model_parameters.h"
#include "tune/rounded_tensor.h"

namespace nibble::tune {

class RoundedWeights : public train::GraphWeights<float> {
 public:
  // What is not rounded comes from `plain`, which must outlive this.
  explicit RoundedWeights(train::ModelParameters<float>& plain) : plain_(plain) {}

  // From now on the slot's numbers are those of `tensor`; `plain` forgets its own. inputs: of linears.
  RoundedTensor& round(std::size_t slot, std::unique_ptr<RoundedTensor> tensor, const InputRounding& inputs);

  train::Var linear(train::Tape<float>& tape, model::Role role, int layer, train::Var x, std::int64_t index) override;
  train::Var tensor(train::Tape<float>& tape, model::Role role, int layer, bool bias) override;

  struct Rounded {
    std::unique_ptr<RoundedTensor> tensor;
    InputRounding inputs;
  };
  const std::map<std::size_t, Rounded>& rounded() const { return rounded_; }  // by slot
  void hold();                                                                // after every step

 private:
  train::ModelParameters<float>& plain_;
  std::map<std::size_t, Rounded> rounded_;
};

}  // namespace nibble::tune
