#include "transform/fold.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "encoding/encoding.h"

namespace nibble::transform {

namespace {

using model::Link;
using model::ModelSource;

// The nearest number of a plain type.
float as_kept(const encoding::EncodingInfo* type, float value) {
  if (type == nullptr || type->encode == nullptr || type->family != encoding::Family::kPlain) return value;
  std::byte bytes[8];
  type->encode(&value, bytes, 1);
  type->decode(bytes, &value, 1);
  return value;
}

void divide_norm(BlockScope& scope, const Link& link, std::vector<float>& scale) {
  const model::ModelSpec& spec = scope.source.spec();
  const float one = spec.norm_add_one ? 1.0f : 0.0f;
  const std::size_t slot = slot_index(spec, link.producer, scope.layer);
  std::vector<float> weight = read_weight(scope.source, slot);
  for (std::size_t c = 0; c < weight.size(); ++c) {
    const float factor = weight[c] + one;
    if (factor == 0) {
      scale[c] = 1;  // nothing flows here
      continue;
    }
    weight[c] = as_kept(scope.targets[slot].kept_as, factor / scale[c] - one);
    const float held = weight[c] + one;
    scale[c] = held != 0 ? factor / held : 1.0f;
    if (held == 0) weight[c] = factor - one;
  }
  write_weight(scope.source, slot, weight);
  const std::size_t bias = slot_index(spec, link.producer, scope.layer, true);
  if (bias == kNoSlot) return;
  std::vector<float> values = read_weight(scope.source, bias);
  for (std::size_t c = 0; c < values.size(); ++c) values[c] /= scale[c];
  write_weight(scope.source, bias, values);
}

void divide_rows(BlockScope& scope, const Link& link, const std::vector<float>& scale) {
  const model::ModelSpec& spec = scope.source.spec();
  for (const bool bias : {false, true}) {
    const std::size_t slot = slot_index(spec, link.producer, scope.layer, bias);
    if (slot == kNoSlot) continue;
    std::vector<float> values = read_weight(scope.source, slot);
    const std::int64_t cols = bias ? 1 : spec.weights[slot].shape.cols();
    for (std::size_t r = 0; r < scale.size(); ++r) {
      float* row = values.data() + (link.first_row + static_cast<std::int64_t>(r)) * cols;
      for (std::int64_t c = 0; c < cols; ++c) row[c] /= scale[r];
    }
    write_weight(scope.source, slot, values);
  }
}

}  // namespace

std::vector<float> read_weight(const ModelSource& source, std::size_t slot) {
  const Shape& shape = source.spec().weights[slot].shape;
  std::vector<float> values(static_cast<std::size_t>(shape.elements()));
  source.read_rows(slot, 0, shape.rows(), values.data());
  return values;
}

void write_weight(ModelSource& source, std::size_t slot, const std::vector<float>& values) {
  Tensor tensor = encoding::allocate(encoding::get("f32"), source.spec().weights[slot].shape);
  std::memcpy(tensor.mutable_part(PartRole::kCodes).data(), values.data(), values.size() * sizeof(float));
  source.exchange(slot, std::move(tensor));
}

std::size_t slot_index(const model::ModelSpec& spec, model::Role role, int layer, bool bias) {
  const model::WeightSlot* slot = spec.find(role, layer, bias);
  return slot == nullptr ? kNoSlot : static_cast<std::size_t>(slot - spec.weights.data());
}

void fold(BlockScope& scope, const Link& link, std::vector<float>& scale) {
  if (link.form == Link::Form::kNorm) {
    divide_norm(scope, link, scale);
  } else {
    divide_rows(scope, link, scale);
  }
  std::vector<float> factors;  // by channel
  for (std::int64_t c = 0; c < link.channels; ++c) factors.push_back(scale[static_cast<std::size_t>(link.row_of(c))]);
  for (const model::Role role : link.consumers) {
    const std::size_t slot = slot_index(scope.source.spec(), role, scope.layer);
    std::vector<float> values = read_weight(scope.source, slot);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] *= factors[i % factors.size()];
    write_weight(scope.source, slot, values);
    scope.walk.divide_original_input(scope.layer, role, factors);
  }
}

void fold_links(BlockScope& scope, const ChooseFactors& choose) {
  const std::vector<calib::Stage> stages = scope.walk.stages(scope.context, scope.layer);
  for (const Link& link : model::block_links(scope.source.spec(), scope.layer)) {
    std::vector<std::size_t> slots;
    for (const model::Role role : link.consumers) {
      const std::size_t slot = slot_index(scope.source.spec(), role, scope.layer);
      if (scope.targets[slot].target != nullptr) slots.push_back(slot);
    }
    const auto stage = std::ranges::find_if(stages, [&](const calib::Stage& each) {
      return std::ranges::find(link.consumers, each.roles[0]) != link.consumers.end();
    });
    if (slots.empty() || stage == stages.end()) continue;
    std::vector<float> scale = choose(link, *stage, std::move(slots));
    if (scale.empty()) continue;
    fold(scope, link, scale);
    scope.walk.reload(scope.context, scope.layer);
  }
}

}  // namespace nibble::transform
