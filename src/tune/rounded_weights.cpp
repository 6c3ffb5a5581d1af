#include "tune/rounded_weights.h"

namespace nibble::tune {

using train::Var;

RoundedTensor& RoundedWeights::round(std::size_t slot, std::unique_ptr<RoundedTensor> tensor,
                                     const InputRounding& inputs) {
  plain_.leave_out(slot);
  Rounded& at = rounded_[slot];
  at = {std::move(tensor), inputs};
  return *at.tensor;
}

Var RoundedWeights::linear(train::Tape<float>& tape, model::Role role, int layer, Var x, std::int64_t index) {
  const std::size_t slot = plain_.find(role, layer);
  const auto found = rounded_.find(slot);
  if (found == rounded_.end()) return plain_.linear(tape, role, layer, x, index);
  const Rounded& at = found->second;
  if (at.inputs.activation != nullptr) x = train::round_inputs(tape, x, at.inputs);
  Var weights = at.tensor->values(tape);
  const Shape& shape = plain_.spec().weights[slot].shape;
  if (shape.rank() == 3) weights = train::row_range(tape, weights, index * shape[1], shape[1]);
  return plain_.add_bias_of(tape, role, layer, train::matmul(tape, x, weights), index);
}

Var RoundedWeights::tensor(train::Tape<float>& tape, model::Role role, int layer, bool bias) {
  const auto found = rounded_.find(plain_.find(role, layer, bias));
  return found == rounded_.end() ? plain_.tensor(tape, role, layer, bias) : found->second.tensor->values(tape);
}

void RoundedWeights::hold() {
  for (const auto& [slot, at] : rounded_) at.tensor->hold();
}

}  // namespace nibble::tune
