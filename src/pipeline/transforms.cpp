#include "pipeline/transforms.h"

#include <algorithm>

#include "base/error.h"
#include "encoding/encoding.h"

namespace nibble::pipeline {

namespace {

constexpr std::int64_t kHeldRows = 64;  // made by one thread at a time

}  // namespace

std::shared_ptr<const model::ModelSource> Transforms::rewrite(std::shared_ptr<const model::ModelSource> source,
                                                              std::uint64_t seed) const {
  for (const transform::Chosen& chosen : of_model)
    source = chosen.transform->apply_model(source, seed, chosen.settings);
  return source;
}

Transforms choose_transforms(std::span<const std::string> names, bool text) {
  Transforms transforms;
  for (const std::string& name : names) {
    transform::Chosen chosen = transform::choose(name);
    if (chosen.transform->apply_model != nullptr) transforms.of_model.push_back(chosen);
    if (chosen.transform->apply == nullptr) continue;
    if (!text) fail(ErrorCode::kInvalidArgument, "transform '{}' learns from a text: give one with --calib TEXT", name);
    transforms.of_blocks.push_back(std::move(chosen));
  }
  return transforms;
}

bool hold_made_weights(ExecContext& context, model::ModelSource& source, int layer) {
  const model::ModelSpec& spec = source.spec();
  bool any = false;
  for (std::size_t slot = 0; slot < spec.weights.size(); ++slot) {
    const model::WeightSlot& weight = spec.weights[slot];
    if (weight.layer != layer || source.weight(slot).made == nullptr || weight.shape.rank() < 2) continue;
    Tensor tensor = encoding::allocate(encoding::get("f32"), weight.shape);
    auto* values = reinterpret_cast<float*>(tensor.mutable_part(PartRole::kCodes).data());
    const std::int64_t rows = weight.shape.rows(), cols = weight.shape.cols();
    context.pool.parallel_dynamic((rows + kHeldRows - 1) / kHeldRows, [&](std::int64_t i) {
      const std::int64_t begin = i * kHeldRows, end = std::min(rows, begin + kHeldRows);
      source.read_rows(slot, begin, end, values + begin * cols);
    });
    source.exchange(slot, std::move(tensor));
    any = true;
  }
  return any;
}

}  // namespace nibble::pipeline
