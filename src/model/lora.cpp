#include "model/lora.h"

#include <algorithm>

#include "base/error.h"
#include "model/source.h"

namespace nibble::model {

namespace {

// A weight with what is added to it.
class MergedRows final : public MadeRows {
 public:
  MergedRows(std::shared_ptr<const ModelSource> base, std::size_t slot, LowRank added)
      : base_(std::move(base)), slot_(slot), added_(std::move(added)) {}
  const StoredRows& origin() const override { return base_->weight(slot_); }
  void read(std::int64_t row_begin, std::int64_t row_end, float* out) const override {
    base_->read_rows(slot_, row_begin, row_end, out);
    if (added_.rank == 0) return;
    for (std::int64_t row = row_begin; row < row_end; ++row, out += added_.cols()) added_.add_row(row, out);
  }

 private:
  std::shared_ptr<const ModelSource> base_;
  std::size_t slot_;
  LowRank added_;
};

bool is_of(const LoraPair& pair, Role role, int layer) { return pair.role == role && pair.layer == layer; }

bool any_of(std::span<const LoraAdapter> adapters, Role role) {
  return std::ranges::any_of(adapters, [role](const LoraAdapter& adapter) {
    return std::ranges::any_of(adapter.pairs, [role](const LoraPair& pair) { return pair.role == role; });
  });
}

}  // namespace

void LoraAdapter::scale_by(double factor) {
  for (LoraPair& pair : pairs) pair.scale *= factor;
}

bool takes_lora(const WeightSlot& slot) {
  return !slot.bias && is_matrix(slot.role) && slot.role != Role::kPositionEmbedding && slot.shape.rank() == 2 &&
         slot.hf_parts == 0 && slot.hf_strides.empty();
}

ModelSpec lora_spec(const ModelSource& base) { return base.spec().tied ? base.with_head() : base.spec(); }

void refuse_rotated(const ModelSpec& spec) {
  if (spec.online_rotation)
    fail(ErrorCode::kUnsupported, "the inputs of this model's linears are rotated; adapters are of those that are not");
}

void LowRank::add_row(std::int64_t row, float* out) const {
  const std::int64_t n = cols(), height = rows();
  for (std::int64_t k = 0; k < rank; ++k) {
    const float factor = b[static_cast<std::size_t>(k * height + row)];
    const float* from = a.data() + k * n;
    for (std::int64_t c = 0; c < n; ++c) out[c] += factor * from[c];
  }
}

LowRank low_rank_of(std::span<const LoraAdapter> adapters, Role role, int layer, std::int64_t row_begin,
                    std::int64_t row_end) {
  LowRank sum;
  for (const LoraAdapter& adapter : adapters) {
    for (const LoraPair& pair : adapter.pairs) {
      if (!is_of(pair, role, layer)) continue;
      sum.rank += pair.rank;
      sum.a.insert(sum.a.end(), pair.a.begin(), pair.a.end());
      for (std::int64_t k = 0; k < pair.rank; ++k) {
        for (std::int64_t row = row_begin; row < row_end; ++row) {
          const auto value = static_cast<double>(pair.b[static_cast<std::size_t>(row * pair.rank + k)]);
          sum.b.push_back(static_cast<float>(pair.scale * value));
        }
      }
    }
  }
  return sum;
}

std::shared_ptr<const ModelSource> merge_lora(std::shared_ptr<const ModelSource> base,
                                              std::span<const LoraAdapter> adapters) {
  refuse_rotated(base->spec());
  const bool untie = base->spec().tied && (any_of(adapters, Role::kTokenEmbedding) || any_of(adapters, Role::kOutput));
  ModelSpec spec = untie ? base->with_head() : base->spec();
  std::vector<std::shared_ptr<const MadeRows>> made(spec.weights.size());
  for (std::size_t i = 0; i < spec.weights.size(); ++i) {
    const WeightSlot& slot = spec.weights[i];
    const bool new_head = i >= base->spec().weights.size();
    if (!takes_lora(slot)) continue;
    LowRank added = low_rank_of(adapters, slot.role, slot.layer, 0, slot.shape.rows());
    if (added.rank == 0 && !new_head) continue;
    const WeightSlot* from = new_head ? base->spec().find(Role::kTokenEmbedding, -1) : &base->spec().weights[i];
    const auto index = static_cast<std::size_t>(from - base->spec().weights.data());
    made[i] = std::make_shared<MergedRows>(base, index, std::move(added));
  }
  return base->rewritten(std::move(spec), std::move(made));
}

}  // namespace nibble::model
