#include "pipeline/conversion.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "container/gguf/vocabulary.h"
#include "model/arch.h"
#include "model/rope.h"

namespace nibble::pipeline {

namespace {

using container::Kind;
using container::Metadata;
using container::TensorEntry;

bool arch_is_known(std::string_view arch) {
  const auto entries = model::all_entries();
  return std::any_of(entries.begin(), entries.end(), [&](const model::Arch* a) { return a->name == arch; });
}

ModelFacts facts_of(const model::ModelSpec& spec) {
  ModelFacts facts;
  facts.arch = spec.arch;
  facts.n_layers = spec.n_layers();
  for (const model::BlockSpec& block : spec.blocks) facts.n_experts = std::max(facts.n_experts, block.experts.count);
  if (!spec.blocks.empty()) facts.gqa = spec.blocks[0].n_heads / std::max(1, spec.blocks[0].n_kv_heads);
  return facts;
}

// From the keys that every architecture has.
ModelFacts facts_of(const Metadata& metadata) {
  ModelFacts facts;
  facts.arch = metadata.get_string("general.architecture");
  const auto key = [&](std::string_view name) { return facts.arch + "." + std::string(name); };
  facts.n_layers = static_cast<int>(metadata.get_int(key("block_count"), 0));
  facts.n_experts = static_cast<int>(metadata.get_int(key("expert_count"), 0));
  if (metadata.contains(key("attention.head_count"))) {
    const auto heads = metadata.get_ints(key("attention.head_count"));
    const auto kv_heads =
        metadata.contains(key("attention.head_count_kv")) ? metadata.get_ints(key("attention.head_count_kv")) : heads;
    if (!heads.empty() && !kv_heads.empty() && kv_heads[0] > 0) facts.gqa = static_cast<int>(heads[0] / kv_heads[0]);
  }
  return facts;
}

std::unordered_map<std::string_view, std::size_t> slots_by_gguf_name(const model::ModelSpec& spec) {
  std::unordered_map<std::string_view, std::size_t> slots;
  for (std::size_t i = 0; i < spec.weights.size(); ++i) slots.emplace(spec.weights[i].gguf_name, i);
  return slots;
}

void describe_gguf_to_gguf(Conversion& conversion) {
  const container::CheckpointReader& reader = conversion.reader();
  conversion.metadata = reader.metadata();
  conversion.facts = facts_of(reader.metadata());
  std::unordered_map<std::string_view, std::size_t> slots;
  if (conversion.model != nullptr) slots = slots_by_gguf_name(conversion.model->spec());
  for (const TensorEntry& entry : reader.tensors()) {
    SourceTensor tensor;
    const auto slot = slots.find(entry.name);
    if (slot != slots.end()) tensor.slot = slot->second;
    tensor.tensor = {entry.name, slot != slots.end() ? conversion.model->spec().weights[slot->second].hf_name : "",
                     entry.view.shape};
    tensor.stored.entry = &entry;
    tensor.stored.view = entry.view;
    tensor.kept_as = entry.view.encoding;
    if (tensor.slot != SourceTensor::kNoSlot && conversion.model->weight(tensor.slot).made != nullptr)
      conversion.take_again(tensor);
    conversion.tensors.push_back(std::move(tensor));
  }
  if (conversion.model == nullptr) return;
  const model::ModelSpec& spec = conversion.model->spec();
  const model::WeightSlot* slot = spec.find(model::Role::kOutput, -1);
  if (slot == nullptr || reader.find(slot->gguf_name) != nullptr) return;
  SourceTensor head;  // that the input does not have
  head.slot = static_cast<std::size_t>(slot - spec.weights.data());
  head.tensor = {slot->gguf_name, slot->hf_name, slot->shape};
  conversion.take_again(head);
  head.kept_as = &head.source_type();
  conversion.tensors.push_back(std::move(head));
}

// Rows that are read in canonical order, in another order instead.
void reorder(model::StoredRows& stored, const model::RowOrder& order) {
  const std::int64_t rows = (stored.shape.rank() > 0 ? stored.shape : stored.view.shape).dims()[0];
  std::vector<std::int32_t> map = model::canonical_rows(order, rows);
  if (map.empty()) return;
  if (!stored.row_map.empty()) {
    for (std::int32_t& row : map) row = stored.row_map[static_cast<std::size_t>(row)];
  }
  bool same = true;
  for (std::size_t row = 0; row < map.size(); ++row) same = same && map[row] == static_cast<std::int32_t>(row);
  stored.row_map = same ? std::vector<std::int32_t>() : std::move(map);
}

void describe_hf_to_gguf(Conversion& conversion) {
  const model::ModelSource& source = *conversion.model;
  const model::ModelSpec& spec = source.spec();
  conversion.facts = facts_of(spec);
  Metadata& metadata = conversion.metadata;
  metadata.set("general.architecture", spec.arch);
  metadata.set("general.type", std::string("model"));
  metadata.set("general.name", spec.name);
  metadata.set("general.size_label", format_count(spec.parameters()));
  metadata.set("general.quantization_version", kQuantizationVersion);
  model::write_gguf_keys(spec, metadata);
  container::gguf::write_vocabulary(source.vocabulary(), metadata, spec.vocab);

  const encoding::EncodingInfo& f32 = encoding::get("f32");
  for (std::size_t i = 0; i < spec.weights.size(); ++i) {
    const model::WeightSlot& slot = spec.weights[i];
    SourceTensor tensor;
    tensor.tensor = {slot.gguf_name, slot.hf_name, model::file_shape(slot, true)};
    tensor.stored = source.weight(i);
    tensor.slot = i;
    if (tensor.stored.entry == nullptr) {
      tensor.values.resize(static_cast<std::size_t>(slot.shape.elements()));
      source.read_rows(i, 0, slot.shape.rows(), tensor.values.data());
    } else {
      reorder(tensor.stored, slot.gguf_rows);
    }
    tensor.stored.add += slot.gguf_add;
    tensor.kept_as = &f32;
    conversion.tensors.push_back(std::move(tensor));
  }
}

// The rows of one expert or head, of that shape.
model::StoredRows stored_part(const model::StoredRows& weight, const Shape& shape, int part) {
  std::int64_t begin = part * shape.rows(), end = begin + shape.rows();
  model::StoredRows stored = weight.part_of(begin, end);
  if (weight.parts.empty()) {  // a part of one tensor; of a vector "row" means element
    const std::int64_t size = shape.dims()[0];
    stored.row_map.resize(static_cast<std::size_t>(size));
    std::iota(stored.row_map.begin(), stored.row_map.end(), static_cast<std::int32_t>(part * size));
  }
  return stored;
}

// Transposed weights (GPT-2's) and stacks of matrices are of no linear.
Module module_of(const model::WeightSlot& slot) {
  const bool table = slot.role == model::Role::kTokenEmbedding || slot.role == model::Role::kPositionEmbedding;
  if (slot.bias || slot.hf_transposed || table || !model::is_matrix(slot.role)) return Module::kNone;
  const Shape shape = slot.hf_strides.empty() ? model::file_shape(slot, false) : slot.hf_strides.shape;
  if (shape.rank() != 2) return Module::kNone;
  return slot.layer >= 0 && slot.role != model::Role::kRouter ? Module::kBlockLinear : Module::kLinear;
}

// A tensor of each expert or head.
void add_parts(Conversion& conversion, std::size_t index, const encoding::EncodingInfo& type) {
  const model::WeightSlot& slot = conversion.model->spec().weights[index];
  const Shape shape = model::file_shape(slot, false);
  for (int part = 0; part < slot.hf_parts; ++part) {
    SourceTensor tensor;
    const std::string name = model::hf_part_name(slot, part);
    tensor.tensor = {name, name, shape};
    tensor.slot = index;
    tensor.part = part;
    tensor.stored = stored_part(conversion.model->weight(index), shape, part);
    tensor.kept_as = &type;
    tensor.module = module_of(slot);
    conversion.tensors.push_back(std::move(tensor));
  }
}

// A tensor that several slots, one after the other, make up. Returns the last of them.
std::size_t add_shared(Conversion& conversion, std::size_t first, const encoding::EncodingInfo& type) {
  const std::vector<model::WeightSlot>& slots = conversion.model->spec().weights;
  const model::WeightSlot& slot = slots[first];
  SourceTensor tensor;
  tensor.tensor = {slot.hf_name, slot.hf_name, slot.hf_strides.shape};
  tensor.stored = conversion.model->weight(first);
  tensor.slot = first;
  tensor.kept_as = &type;
  tensor.module = module_of(slot);
  std::size_t i = first;
  for (; i < slots.size() && slots[i].hf_name == slot.hf_name; ++i)
    tensor.shares.push_back({conversion.model->weight(i), slots[i].shape, slots[i].hf_strides});
  conversion.tensors.push_back(std::move(tensor));
  return i - 1;
}

void note_unused(Conversion& conversion) {
  std::unordered_set<const TensorEntry*> used;
  const model::ModelSource& source = *conversion.model;
  for (std::size_t i = 0; i < source.spec().weights.size(); ++i) {
    for (const TensorEntry* entry : source.weight(i).entries()) used.insert(entry);
  }
  std::size_t unused = 0;
  std::string first;
  for (const TensorEntry& entry : conversion.reader().tensors()) {
    if (!used.contains(&entry) && unused++ == 0) first = entry.name;
  }
  if (unused > 0) {
    conversion.notes.push_back(format_text(
        "{} tensors of the input belong to no part of the architecture and were left out ('{}', ...)", unused, first));
  }
}

void rewrite_model(Conversion& conversion, const Rewrite& rewrite) {
  if (!rewrite) return;
  const bool tied = conversion.model->spec().tied;
  conversion.model = rewrite(std::move(conversion.model));
  const model::ModelSpec& spec = conversion.model->spec();
  if (tied == spec.tied) return;
  conversion.notes.push_back(
      format_text("the embedding is no longer the head, which has {} weights of its own",
                  format_count(static_cast<std::uint64_t>(spec.weights.back().shape.elements()))));
}

}  // namespace

const encoding::EncodingInfo& sixteen_bits(const model::ModelSource& source) {
  const encoding::EncodingInfo& bf16 = encoding::get("bf16");
  for (std::size_t i = 0; i < source.spec().weights.size(); ++i) {
    if (source.spec().weights[i].role == model::Role::kTokenEmbedding && source.weight(i).view.encoding == &bf16)
      return bf16;
  }
  return encoding::get("f16");
}

const encoding::EncodingInfo& SourceTensor::source_type() const {
  return stored.entry != nullptr ? *stored.view.encoding : encoding::get("f32");
}

std::vector<const TensorView*> SourceTensor::stored_views() const {
  std::vector<const TensorView*> views;
  if (!bytes_survive()) return views;
  for (const TensorEntry* entry : stored.entries()) views.push_back(&entry->view);
  return views;
}

void SourceTensor::read(std::int64_t row_begin, std::int64_t row_end, float* out) const {
  const std::int64_t cols = tensor.shape.cols();
  if (!shares.empty()) {
    read_shares(row_begin, row_end, out);
  } else if (stored.entry == nullptr) {
    std::copy(values.begin() + row_begin * cols, values.begin() + row_end * cols, out);
  } else if (stored.view.shape.rank() == 1 && tensor.shape.rank() > 1) {  // a vector that files hold as rows
    std::vector<float> all(static_cast<std::size_t>(tensor.shape.elements()));
    stored.read(0, 1, all.data());
    std::copy(all.begin() + row_begin * cols, all.begin() + row_end * cols, out);
  } else {
    stored.read(row_begin, row_end, out);
  }
}

// Every row of a weight of which a number lies in the range is read, and the numbers that do are put in place.
void SourceTensor::read_shares(std::int64_t row_begin, std::int64_t row_end, float* out) const {
  const std::int64_t width = tensor.shape.cols(), begin = row_begin * width, end = row_end * width;
  for (const Share& share : shares) {
    const std::int64_t cols = share.shape.cols(), height = model::Strides::rows_of_matrix(share.shape);
    std::vector<float> row(static_cast<std::size_t>(cols));
    for (std::int64_t r = 0; r < share.shape.rows(); ++r) {
      const model::Strides& strides = share.strides;
      const std::int64_t first = strides.offset + r / height * strides.matrix + r % height * strides.row;
      if (first >= end || first + (cols - 1) * strides.col < begin) continue;
      share.stored.read(r, r + 1, row.data());
      for (std::int64_t c = 0; c < cols; ++c) {
        const std::int64_t at = first + c * strides.col;
        if (at >= begin && at < end) out[at - begin] = row[static_cast<std::size_t>(c)];
      }
    }
  }
}

void Conversion::take_again(SourceTensor& tensor) const {
  const model::WeightSlot& slot = model->spec().weights.at(tensor.slot);
  const model::StoredRows& weight = model->weight(tensor.slot);
  if (!to_gguf && slot.hf_parts > 0) {
    tensor.stored = stored_part(weight, model::file_shape(slot, false), tensor.part);
    return;
  }
  tensor.stored = weight;
  if (to_gguf) {
    reorder(tensor.stored, slot.gguf_rows);
    tensor.stored.add += slot.gguf_add;
  } else {
    tensor.stored.transposed = slot.hf_transposed && !weight.transposed;
    reorder(tensor.stored, slot.hf_rows);
  }
}

Conversion describe_for_gguf(const std::filesystem::path& input, const Rewrite& rewrite) {
  Conversion conversion;
  conversion.file = container::open(input);
  const bool gguf = conversion.file->kind() == Kind::kGguf;
  if (!gguf || arch_is_known(conversion.file->metadata().get_string("general.architecture"))) {
    conversion.file.reset();
    conversion.model = model::ModelSource::open(input);
    rewrite_model(conversion, rewrite);
  } else {
    if (rewrite)
      fail(ErrorCode::kUnsupported, "architecture '{}' is not known: its weights cannot be rewritten",
           conversion.file->metadata().get_string("general.architecture"));
    conversion.notes.push_back(format_text("architecture '{}' is not known: tensors are taken by their names",
                                           conversion.file->metadata().get_string("general.architecture")));
  }
  if (gguf) {
    describe_gguf_to_gguf(conversion);
  } else {
    describe_hf_to_gguf(conversion);
    note_unused(conversion);
  }
  return conversion;
}

Conversion describe_for_hf(const std::filesystem::path& input, const encoding::EncodingInfo* asked,
                           const Rewrite& rewrite) {
  Conversion conversion;
  conversion.to_gguf = false;
  conversion.model = model::ModelSource::open(input);
  rewrite_model(conversion, rewrite);
  const model::ModelSpec& spec = conversion.model->spec();
  const encoding::EncodingInfo& type = asked != nullptr ? *asked : sixteen_bits(*conversion.model);
  conversion.facts = facts_of(spec);
  conversion.metadata.set("format", std::string("pt"));
  for (std::size_t i = 0; i < spec.weights.size(); ++i) {
    const model::WeightSlot& slot = spec.weights[i];
    const model::StoredRows& weight = conversion.model->weight(i);
    if (model::is_rope_factors(slot.role) || weight.entry == nullptr) continue;  // config.json says them
    if (slot.hf_parts > 0) {
      add_parts(conversion, i, type);
      continue;
    }
    if (!slot.hf_strides.empty()) {
      i = add_shared(conversion, i, type);
      continue;
    }
    SourceTensor tensor;
    tensor.tensor = {slot.hf_name, slot.hf_name, model::file_shape(slot, false)};
    tensor.slot = i;
    tensor.stored = weight;
    tensor.stored.transposed = slot.hf_transposed && !weight.transposed;  // back to how they lay, or turned
    reorder(tensor.stored, slot.hf_rows);
    tensor.kept_as = &type;
    tensor.module = module_of(slot);
    conversion.tensors.push_back(std::move(tensor));
  }
  note_unused(conversion);
  return conversion;
}

}  // namespace nibble::pipeline
