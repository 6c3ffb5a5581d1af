#include "train/model_parameters.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/rng.h"
#include "encoding/encoding.h"

namespace nibble::train {

using model::ModelSpec;
using model::Role;
using model::WeightSlot;

namespace {

bool writes_to_stream(Role role) {
  return role == Role::kAttnOutput || role == Role::kFfnDown || role == Role::kExpertDown || role == Role::kSharedDown;
}

bool is_norm(Role role) {
  static constexpr Role kNorms[] = {Role::kOutputNorm,   Role::kAttnNorm,  Role::kAttnQANorm,
                                    Role::kAttnKvANorm,  Role::kAttnQNorm, Role::kAttnKNorm,
                                    Role::kAttnPostNorm, Role::kFfnNorm,   Role::kFfnPostNorm};
  return std::ranges::find(kNorms, role) != std::end(kNorms);
}

}  // namespace

std::size_t slot_of(const ModelSpec& spec, Role role, int layer, bool bias) {
  if (role == Role::kOutput && spec.tied && !bias) role = Role::kTokenEmbedding;
  const WeightSlot* slot = spec.find(role, layer, bias);
  return slot == nullptr ? ~std::size_t{0} : static_cast<std::size_t>(slot - spec.weights.data());
}

Tensor as_f32(const Parameter& parameter, const Shape& shape) {
  Tensor tensor = encoding::allocate(encoding::get("f32"), shape);
  std::memcpy(tensor.mutable_part(PartRole::kCodes).data(), parameter.values(),
              static_cast<std::size_t>(parameter.size()) * sizeof(float));
  return tensor;
}

template <typename Real>
void ModelParameters<Real>::add(const WeightSlot& slot) {
  const std::int64_t rows = slot.shape.rank() <= 1 ? 1 : slot.shape.rows();
  auto parameter = std::make_unique<BasicParameter<Real>>(slot.hf_name, rows, slot.shape.elements() / rows);
  parameter->decays = model::is_matrix(slot.role) && !slot.bias;
  if (model::is_rope_factors(slot.role)) parameter->gradient = {};
  parameters_.push_back(std::move(parameter));
}

template <typename Real>
ModelParameters<Real>::ModelParameters(const model::ModelSource& source, int layer) : spec_(source.spec()) {
  for (std::size_t i = 0; i < spec_.weights.size(); ++i) {
    const WeightSlot& slot = spec_.weights[i];
    if (layer != kAllLayers && slot.layer != layer) {
      parameters_.push_back(nullptr);
      continue;
    }
    add(slot);
    BasicParameter<Real>& to = *parameters_.back();
    constexpr std::int64_t kRows = 256;
    std::vector<float> some(static_cast<std::size_t>(std::min(kRows, slot.shape.rows()) * slot.shape.cols()));
    for (std::int64_t row = 0; row < slot.shape.rows(); row += kRows) {
      const std::int64_t end = std::min(row + kRows, slot.shape.rows());
      const auto n = static_cast<std::ptrdiff_t>((end - row) * slot.shape.cols());
      source.read_rows(i, row, end, some.data());
      if (!std::all_of(some.begin(), some.begin() + n, [](float v) { return std::isfinite(v); }))
        fail(ErrorCode::kFormat, "{}: tensor '{}' holds a value that is NaN or infinite",
             source.reader().path().string(), source.weight(i).entry->name);
      std::copy_n(some.begin(), n, to.values() + row * slot.shape.cols());
    }
  }
}

template <typename Real>
ModelParameters<Real>::ModelParameters(const ModelSpec& spec, std::uint64_t seed) : spec_(spec) {
  const double in_stream = 1 / std::sqrt(2.0 * spec.n_layers());
  for (std::size_t i = 0; i < spec.weights.size(); ++i) {
    const WeightSlot& slot = spec.weights[i];
    add(slot);
    BasicParameter<Real>& to = *parameters_.back();
    const double deviation = 0.02 * (writes_to_stream(slot.role) ? in_stream : 1);
    const Real constant = is_norm(slot.role) && !slot.bias && !spec.norm_add_one ? 1 : 0;
    const bool drawn = !slot.bias && !is_norm(slot.role) && slot.role != Role::kAttnSinks;
    for (std::int64_t k = 0; k < to.size(); ++k) {
      const auto normal = static_cast<double>(random_normal(seed, i, static_cast<std::uint64_t>(k)));
      to.values()[k] = drawn ? static_cast<Real>(deviation * normal) : constant;
    }
  }
}

template <typename Real>
std::size_t ModelParameters<Real>::find(Role role, int layer, bool bias) const {
  return slot_of(spec_, role, layer, bias);
}

template <typename Real>
Var ModelParameters<Real>::part(Tape<Real>& tape, std::size_t slot, std::int64_t rows, std::int64_t cols,
                                std::int64_t index) {
  BasicParameter<Real>& from = *parameters_[slot];
  const std::int64_t at = index * rows * cols;
  return tape.borrow(rows, cols, from.values() + at, from.gradient.size() > 0 ? from.gradients() + at : nullptr);
}

template <typename Real>
Var ModelParameters<Real>::linear(Tape<Real>& tape, Role role, int layer, Var x, std::int64_t index) {
  const std::size_t slot = find(role, layer);
  const Shape& shape = spec_.weights[slot].shape;
  const std::int64_t rows = model::Strides::rows_of_matrix(shape);
  const Var y = matmul(tape, x, part(tape, slot, rows, shape.cols(), index));
  return add_bias_of(tape, role, layer, y, index);
}

template <typename Real>
Var ModelParameters<Real>::add_bias_of(Tape<Real>& tape, Role role, int layer, Var y, std::int64_t index) {
  const std::size_t slot = find(role, layer, true);
  return slot == kNone ? y : add_bias(tape, y, part(tape, slot, 1, tape.cols(y), index));
}

template <typename Real>
void ModelParameters<Real>::freeze_all() {
  for (const auto& parameter : parameters_) {
    if (parameter != nullptr) parameter->gradient = {};
  }
}

template <typename Real>
Var ModelParameters<Real>::tensor(Tape<Real>& tape, Role role, int layer, bool bias) {
  const std::size_t slot = find(role, layer, bias);
  return slot == kNone ? Var{} : tape.parameter(*parameters_[slot]);
}

template <typename Real>
std::vector<BasicParameter<Real>*> ModelParameters<Real>::trained() {
  std::vector<BasicParameter<Real>*> out;
  for (const auto& parameter : parameters_) {
    if (parameter != nullptr && parameter->gradient.size() > 0) out.push_back(parameter.get());
  }
  return out;
}

template class ModelParameters<float>;
template class ModelParameters<double>;

}  // namespace nibble::train
