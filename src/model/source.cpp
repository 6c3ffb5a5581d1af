#include "model/source.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "container/gguf/vocabulary.h"
#include "container/hf/scheme.h"
#include "encoding/encoding.h"
#include "model/arch.h"
#include "model/rope.h"

namespace nibble::model {

namespace {

using container::CheckpointReader;
using container::Kind;

ModelSpec describe_hf(const CheckpointReader& reader) {
  const json::Value& config = reader.config();
  container::hf::refuse_unread(config);
  const std::string type = config.get("model_type", "");
  if (type.empty()) fail(ErrorCode::kFormat, "config.json names no 'model_type'");
  ModelSpec spec = arch_by_model_type(type).from_hf(config);
  if (spec.name.empty()) spec.name = std::filesystem::weakly_canonical(reader.folder()).filename().string();
  return spec;
}

ModelSpec describe(const CheckpointReader& reader) {
  if (reader.kind() == Kind::kHuggingFace) return describe_hf(reader);
  if (reader.kind() == Kind::kGguf) {
    return spec_from_gguf(reader.metadata());
  }
  fail(ErrorCode::kUnsupported, "a {} alone says nothing about the network, and there is no config.json beside it",
       container::kind_name(reader.kind()));
}

const container::TensorEntry* find_entry(const CheckpointReader& reader, const std::string& name, bool optional) {
  const container::TensorEntry* entry = reader.find(name);
  // Models saved without their head lack the first part of their names ("transformer.", "model.").
  const std::size_t dot = name.find('.');
  if (entry == nullptr && reader.kind() != Kind::kGguf && dot != name.npos) entry = reader.find(name.substr(dot + 1));
  if (entry == nullptr && !optional) reader.at(name);  // throws
  return entry;
}

void check_entry(const container::TensorEntry& entry, const Shape& expected) {
  if (entry.view.shape != expected) {
    fail(ErrorCode::kFormat, "tensor '{}' has shape {}, expected {}", entry.name, entry.view.shape.to_string(),
         expected.to_string());
  }
  with_context(format_text("tensor '{}'", entry.name), [&] { encoding::validate(entry.view); });
}

// A tensor of each expert.
StoredRows bind_parts(const CheckpointReader& reader, const WeightSlot& slot) {
  StoredRows weight;
  for (int part = 0; part < slot.hf_parts; ++part) {
    const container::TensorEntry* entry = find_entry(reader, hf_part_name(slot, part), false);
    check_entry(*entry, file_shape(slot, false));
    weight.parts.push_back(entry);
    if (entry->view.encoding != weight.parts[0]->view.encoding) {
      fail(ErrorCode::kUnsupported, "tensor '{}' is {}, that of the first expert {}", entry->name,
           entry->view.encoding->name, weight.parts[0]->view.encoding->name);
    }
  }
  weight.entry = weight.parts.at(0);
  weight.view = weight.entry->view;
  return weight;
}

StoredRows bind(const CheckpointReader& reader, const WeightSlot& slot) {
  StoredRows weight;
  const bool gguf = reader.kind() == Kind::kGguf;
  const std::string& name = gguf ? slot.gguf_name : slot.hf_name;
  if (name.empty()) return weight;
  if (!gguf && slot.hf_parts > 0) return bind_parts(reader, slot);
  weight.entry = find_entry(reader, name, slot.optional);
  if (weight.entry == nullptr) return weight;
  weight.view = weight.entry->view;
  // The converters of llama.cpp and others write a matrix of one row as it is, too.
  const bool as_row = gguf && slot.hf_row && weight.view.shape.rank() == 2;
  check_entry(*weight.entry, file_shape(slot, gguf && !as_row));
  weight.transposed = !gguf && slot.hf_transposed;
  if (slot.file_shape.rank() > 0 || slot.hf_row) weight.view.shape = slot.shape;
  // Scales of tiles say nothing about other rows.
  if (weight.view.n_parts > 1 && (weight.transposed || weight.view.rows() != weight.entry->view.rows()))
    fail(ErrorCode::kUnsupported, "tensor '{}' is read in other rows than {} has", name, weight.view.encoding->name);
  weight.row_map = stored_rows(gguf ? slot.gguf_rows : slot.hf_rows, slot.shape.dims()[0]);
  if (gguf) weight.add = -slot.gguf_add;
  return weight;
}

// What the presence of tensors decides.
void settle(ModelSpec& spec) {
  if (spec.find(Role::kOutput, -1) == nullptr) spec.tied = true;
  spec.head_bias = spec.find(Role::kOutput, -1, true) != nullptr;
  for (int layer = 0; layer < spec.n_layers(); ++layer) {
    BlockSpec& block = spec.blocks[static_cast<std::size_t>(layer)];
    const auto biased = [&](std::initializer_list<Role> roles) {
      return std::ranges::any_of(roles, [&](Role role) { return spec.find(role, layer, true) != nullptr; });
    };
    block.qkv_bias = biased({Role::kAttnQ, Role::kAttnK, Role::kAttnV, Role::kAttnQkv});
    block.output_bias = biased({Role::kAttnOutput});
    block.ffn_bias = biased({Role::kFfnGate, Role::kFfnUp, Role::kFfnGateUp, Role::kFfnDown});
  }
}

}  // namespace

std::span<const container::TensorEntry* const> StoredRows::entries() const {
  if (!parts.empty()) return parts;
  return {&entry, entry != nullptr ? 1u : 0u};
}

std::uint64_t StoredRows::n_bytes() const {
  std::uint64_t sum = 0;
  for (const container::TensorEntry* part : entries()) sum += part->view.n_bytes();
  return sum;
}

StoredRows StoredRows::part_of(std::int64_t& row_begin, std::int64_t& row_end) const {
  StoredRows part = *this;
  if (parts.empty()) return part;
  const std::int64_t index = row_begin / view.rows();
  part.parts.clear();
  part.entry = parts[static_cast<std::size_t>(index)];
  part.view = part.entry->view;
  row_begin -= index * view.rows();
  row_end -= index * view.rows();
  return part;
}

void StoredRows::read(std::int64_t row_begin, std::int64_t row_end, float* out) const {
  const std::int64_t n_cols = cols();
  if (!parts.empty()) {
    const std::int64_t height = view.rows();
    for (std::int64_t row = row_begin; row < row_end;) {
      const std::int64_t index = row / height, first = row % height;
      const std::int64_t count = std::min(height - first, row_end - row);
      encoding::decode_rows(parts[static_cast<std::size_t>(index)]->view, first, first + count,
                            out + (row - row_begin) * n_cols);
      row += count;
    }
  } else if (transposed) {
    // Of plain numbers only the columns that are wanted are decoded.
    const bool plain = view.encoding->family == encoding::Family::kPlain;
    const std::int64_t first = plain ? row_begin : 0;
    const std::size_t size = plain ? dtype_bytes(view.encoding->dtype) : 0;
    std::vector<float> row(static_cast<std::size_t>(plain ? row_end - row_begin : view.cols()));
    for (std::int64_t c = 0; c < n_cols; ++c) {
      if (plain) {
        const std::byte* from = view.data().data() + static_cast<std::size_t>(c * view.cols() + first) * size;
        view.encoding->decode(from, row.data(), row_end - row_begin);
      } else {
        encoding::decode_rows(view, c, c + 1, row.data());
      }
      for (std::int64_t r = row_begin; r < row_end; ++r)
        out[(r - row_begin) * n_cols + c] = row[static_cast<std::size_t>(r - first)];
    }
  } else if (row_map.empty()) {
    encoding::decode_rows(view, row_begin, row_end, out);
  } else if (view.shape.rank() == 1) {
    std::vector<float> stored(static_cast<std::size_t>(n_cols));
    encoding::decode_rows(view, 0, 1, stored.data());
    for (std::size_t i = 0; i < stored.size(); ++i) out[i] = stored[static_cast<std::size_t>(row_map[i])];
  } else {
    for (std::int64_t row = row_begin; row < row_end; ++row) {
      const std::int64_t at = row_map[static_cast<std::size_t>(row)];
      encoding::decode_rows(view, at, at + 1, out + (row - row_begin) * n_cols);
    }
  }
  if (add != 0) {
    for (std::int64_t i = 0; i < (row_end - row_begin) * n_cols; ++i) out[i] += add;
  }
}

std::shared_ptr<const ModelSource> ModelSource::open(const std::filesystem::path& path) {
  return from_reader(container::open_model(path));
}

std::shared_ptr<const ModelSource> ModelSource::from_reader(std::unique_ptr<container::CheckpointReader> reader) {
  std::shared_ptr<ModelSource> source(new ModelSource());
  source->reader_ = std::move(reader);
  with_context(source->reader_->path().string(), [&] { source->bind_weights(); });
  return source;
}

void ModelSource::bind_weights() {
  ModelSpec& spec = spec_;
  spec = describe(*reader_);
  validate(spec);
  std::vector<WeightSlot> slots;
  for (WeightSlot& slot : spec.weights) {
    StoredRows weight = bind(*reader_, slot);
    if (weight.entry == nullptr && slot.optional) continue;
    slot.optional = false;
    slots.push_back(std::move(slot));
    weights_.push_back(std::move(weight));
  }
  spec.weights = std::move(slots);
  settle(spec);
  take_rope_factors();
  validate(spec);
}

void ModelSource::take_rope_factors() {
  RopeSpec& rope = spec_.rope;
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    const Role role = spec_.weights[i].role;
    if (!is_rope_factors(role) || weights_[i].entry == nullptr) continue;
    std::vector<float> factors(static_cast<std::size_t>(rope.dims / 2));
    read_rows(i, 0, 1, factors.data());
    (role == Role::kRopeFactorsLong ? rope.long_factors : rope.factors) = std::move(factors);
    if (role == Role::kRopeFactorsLong) rope.scaling = RopeScaling::kLongRope;
  }
}

void ModelSource::read_rows(std::size_t slot, std::int64_t row_begin, std::int64_t row_end, float* out) const {
  const StoredRows& weight = weights_[slot];
  if (weight.entry != nullptr) return weight.read(row_begin, row_end, out);
  const bool is_long = spec_.weights[slot].role == Role::kRopeFactorsLong;
  const std::vector<float> factors = is_long ? spec_.rope.long_factors : rope_factors(spec_.rope);
  std::memcpy(out, factors.data(), factors.size() * sizeof(float));
}

token::Vocabulary ModelSource::vocabulary() const {
  if (reader_->kind() == Kind::kGguf) return container::gguf::read_vocabulary(reader_->metadata());
  return token::load_vocabulary(reader_->folder());
}

}  // namespace nibble::model
