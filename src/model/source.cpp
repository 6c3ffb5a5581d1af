#include "model/source.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "container/gguf/vocabulary.h"
#include "container/hf/scheme.h"
#include "encoding/activation.h"
#include "encoding/encoding.h"
#include "model/arch.h"
#include "model/kv_cache.h"
#include "model/rope.h"

namespace nibble::model {

namespace {

using container::CheckpointReader;
using container::Kind;

ModelSpec describe_hf(const CheckpointReader& reader, bool untied = false) {
  const json::Value& config = reader.config();
  container::hf::refuse_unread(config);
  json::Value text = text_config(config);
  if (untied) text.set("tie_word_embeddings", false);
  ModelSpec spec = arch_by_model_type(text.get("model_type", "")).from_hf(text);
  if (const json::Value* quantization = config.find("quantization_config"))
    spec.online_rotation = quantization->get("online_rotation", false);
  const bool larger = config.find("text_config") != nullptr && text.find("text_config") == nullptr;
  if (larger && text.find("tie_word_embeddings") == nullptr) {  // the classes of larger models have other defaults
    for (WeightSlot& slot : spec.weights) slot.optional = slot.optional || slot.role == Role::kOutput;
  }
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
  // Models saved without their head lack the first part of their names ("transformer.", "model."); text models of
  // larger ones stand under a part more, before it or behind it.
  const std::size_t dot = name.find('.');
  if (entry == nullptr && reader.kind() != Kind::kGguf && dot != name.npos) {
    const std::string rest = name.substr(dot + 1);
    for (const std::string& other :
         {rest, "language_model." + name, name.substr(0, dot) + ".language_model." + rest, "language_model." + rest}) {
      if (entry == nullptr) entry = reader.find(other);
    }
  }
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

// A tensor of each expert or head.
StoredRows bind_parts(const CheckpointReader& reader, const WeightSlot& slot) {
  StoredRows weight;
  for (int part = 0; part < slot.hf_parts; ++part) {
    const container::TensorEntry* entry = find_entry(reader, hf_part_name(slot, part), false);
    check_entry(*entry, file_shape(slot, false));
    weight.parts.push_back(entry);
    if (entry->view.encoding != weight.parts[0]->view.encoding) {
      fail(ErrorCode::kUnsupported, "tensor '{}' is {}, that of the first {}", entry->name, entry->view.encoding->name,
           weight.parts[0]->view.encoding->name);
    }
  }
  weight.entry = weight.parts.at(0);
  weight.view = weight.entry->view;
  if (weight.shares_input_scale()) {  // the largest, as vLLM has it
    for (const container::TensorEntry* part : weight.parts)
      weight.view.inputs.scale = std::max(weight.view.inputs.scale, part->view.inputs.scale);
  }
  weight.shape = slot.shape;
  if (slot.shape.rank() == 1) weight.view.shape = slot.shape;
  return weight;
}

// A tensor that holds other weights, too. Where whole rows are this one's they keep their encoding.
StoredRows bind_strides(StoredRows weight, const WeightSlot& slot, const Strides& strides) {
  const std::int64_t width = strides.shape.cols();
  const bool rows = strides.col == 1 && slot.shape.cols() == width && strides.offset % width == 0 &&
                    strides.matrix % width == 0 && strides.row % width == 0;
  if (!rows) {
    weight.strides = strides;
    return weight;
  }
  const std::int64_t per_matrix = strides.rows_of_matrix(slot.shape);
  for (std::int64_t row = 0; row < slot.shape.rows(); ++row) {
    const std::int64_t at = strides.offset + row / per_matrix * strides.matrix + row % per_matrix * strides.row;
    weight.row_map.push_back(checked_cast<std::int32_t>(at / width));
  }
  return weight;
}

// A GGUF file may have a scale of its whole tensor beside a weight (of NVFP4, of BitNet), without which it is another.
void refuse_scale_beside(const CheckpointReader& reader, const std::string& name) {
  constexpr std::string_view kWeight = ".weight";
  if (!name.ends_with(kWeight)) return;
  const std::string scale = name.substr(0, name.size() - kWeight.size()) + ".scale";
  if (reader.find(scale) != nullptr)
    fail(ErrorCode::kUnsupported, "tensor '{}' is scaled by '{}', which is not read", name, scale);
}

StoredRows bind(const CheckpointReader& reader, const WeightSlot& slot) {
  StoredRows weight;
  const bool gguf = reader.kind() == Kind::kGguf;
  const std::string& name = gguf ? slot.gguf_name : slot.hf_name;
  if (name.empty()) return weight;
  if (!gguf && slot.hf_parts > 0) return bind_parts(reader, slot);
  weight.entry = find_entry(reader, name, slot.optional);
  if (weight.entry == nullptr) return weight;
  if (gguf) refuse_scale_beside(reader, name);
  weight.view = weight.entry->view;
  weight.shape = slot.shape;
  // In their absorbed form they multiply other numbers than the inputs of the linear in the file.
  if (slot.role == Role::kAttnKB || slot.role == Role::kAttnVB) weight.view.inputs = {};
  // Of a stack of experts packed numbers lie along the inputs, however plain ones do.
  const bool packed = weight.view.encoding->family != encoding::Family::kPlain;
  const bool turned = !gguf && packed && is_expert_stack(slot.role) && slot.hf_strides.col > 1;
  const Strides strides = turned ? slot.hf_strides.turned() : slot.hf_strides;
  // The converters of llama.cpp and others write a matrix of one row as it is, too.
  const bool as_row = gguf && slot.hf_row && weight.view.shape.rank() == 2;
  check_entry(*weight.entry, turned ? strides.shape : file_shape(slot, gguf && !as_row));
  weight.transposed = !gguf && slot.hf_transposed;
  if (slot.file_shape.rank() > 0 || slot.hf_row) weight.view.shape = slot.shape;
  // Scales of tiles say nothing about other rows.
  if (weight.view.n_parts > 1 && weight.view.rows() != weight.entry->view.rows())
    fail(ErrorCode::kUnsupported, "tensor '{}' is read in other rows than {} has", name, weight.view.encoding->name);
  if (!gguf && !slot.hf_strides.empty()) return bind_strides(std::move(weight), slot, strides);
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
    const bool weighted = block.qk_norm != QkNorm::kAfterRope;
    if (weighted && spec.find(Role::kAttnQNorm, layer) == nullptr) block.qk_norm = QkNorm::kNone;
    block.qk_norm_bias = biased({Role::kAttnQNorm, Role::kAttnKNorm});
    block.qkv_bias = biased({Role::kAttnQ, Role::kAttnK, Role::kAttnV, Role::kAttnQkv});
    block.output_bias = biased({Role::kAttnOutput});
    block.ffn_bias = biased({Role::kFfnGate, Role::kFfnUp, Role::kFfnGateUp, Role::kFfnDown});
  }
}

}  // namespace

std::shared_ptr<const ModelSource> ModelSource::open(const std::filesystem::path& path) {
  return from_reader(container::open_model(path));
}

std::shared_ptr<const ModelSource> ModelSource::from_reader(std::unique_ptr<container::CheckpointReader> reader) {
  std::shared_ptr<ModelSource> source(new ModelSource());
  source->reader_ = std::move(reader);
  with_context(source->reader_->path().string(), [&] { source->bind_weights(); });
  return source;
}

std::shared_ptr<ModelSource> ModelSource::exchangeable() const {
  if (!exchanged_.empty()) fail(ErrorCode::kInternal, "weights are exchanged already");
  std::shared_ptr<ModelSource> source(new ModelSource());
  source->reader_ = reader_;
  source->spec_ = spec_;
  source->weights_ = weights_;
  source->made_ = made_;
  return source;
}

std::shared_ptr<const ModelSource> ModelSource::rewritten(ModelSpec spec,
                                                          std::vector<std::shared_ptr<const MadeRows>> made) const {
  std::shared_ptr<ModelSource> source = exchangeable();
  source->weights_.resize(spec.weights.size());
  for (std::size_t i = 0; i < made.size(); ++i) {
    if (made[i] == nullptr) continue;
    StoredRows& stored = source->weights_[i];
    stored = {};
    stored.entry = made[i]->origin().entry;
    stored.shape = spec.weights[i].shape;
    stored.view.encoding = made[i]->origin().view.encoding;
    stored.view.shape = stored.shape;
    stored.made = made[i].get();
  }
  source->spec_ = std::move(spec);
  source->spec_.kv_type.reset();  // scales are of the keys and values as they were
  source->made_ = std::move(made);
  return source;
}

ModelSpec ModelSource::with_head() const {
  const ModelSpec full = reader_->kind() == Kind::kGguf ? describe(*reader_) : describe_hf(*reader_, true);
  const WeightSlot* head = full.find(Role::kOutput, -1);
  if (head == nullptr) fail(ErrorCode::kUnsupported, "architecture '{}' has no head beside its embedding", spec_.arch);
  ModelSpec spec = spec_;
  spec.tied = false;
  spec.weights.push_back(*head);
  spec.weights.back().optional = false;
  return spec;
}

void ModelSource::exchange(std::size_t slot, Tensor tensor) {
  const WeightSlot& weight = spec_.weights.at(slot);
  if (tensor.view().shape != weight.shape)
    fail(ErrorCode::kInternal, "'{}' exchanged for a tensor of shape {}", weight.hf_name,
         tensor.view().shape.to_string());
  restore(slot);
  Exchanged& exchanged = exchanged_[slot];
  exchanged.original = std::move(weights_[slot]);
  exchanged.tensor = std::move(tensor);
  const container::TensorEntry* original = exchanged.original.entry;
  exchanged.entry.name = original != nullptr ? original->name : weight.hf_name;
  exchanged.entry.view = exchanged.tensor.view();
  StoredRows& stored = weights_[slot];
  stored = {};
  stored.entry = &exchanged.entry;
  stored.view = exchanged.entry.view;
  stored.shape = weight.shape;
}

void ModelSource::restore(std::size_t slot) {
  const auto found = exchanged_.find(slot);
  if (found == exchanged_.end()) return;
  weights_[slot] = std::move(found->second.original);
  exchanged_.erase(found);
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
  take_cache_scales();
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

void ModelSource::take_cache_scales() {
  const encoding::ActivationInfo* rounding = container::hf::cache_rounding(reader_->config());
  if (rounding == nullptr) return;
  for (int layer = 0; layer < spec_.n_layers(); ++layer) {
    const auto scale = [&](char side) {
      const std::string name = cache_scale_name(spec_, layer, side);
      return name.empty() ? 0 : container::hf::cache_scale(find_entry(*reader_, name, true), name);
    };
    give_cache_scales(layer, *rounding, scale('k'), scale('v'));
  }
}

void ModelSource::give_cache_scales(int layer, const encoding::ActivationInfo& rounding, float k_scale, float v_scale) {
  BlockSpec& block = spec_.blocks.at(static_cast<std::size_t>(layer));
  block.k_scale = k_scale;
  block.v_scale = v_scale;
  if (k_scale > 0) spec_.kv_type = fixed_kv_type(rounding);
}

void ModelSource::read_rows(std::size_t slot, std::int64_t row_begin, std::int64_t row_end, float* out) const {
  const StoredRows& weight = weights_[slot];
  if (weight.entry != nullptr) return weight.read(row_begin, row_end, out);
  const bool is_long = spec_.weights[slot].role == Role::kRopeFactorsLong;
  const std::vector<float> factors = is_long ? spec_.rope.long_factors : rope_factors(spec_.rope);
  std::memcpy(out, factors.data(), factors.size() * sizeof(float));
}

token::Vocabulary ModelSource::vocabulary() const {
  if (reader_->kind() != Kind::kGguf) return token::load_vocabulary(reader_->folder());
  token::Vocabulary vocabulary = container::gguf::read_vocabulary(reader_->metadata());
  if (const auto complete = arch_of(spec_).complete_vocabulary; complete != nullptr) complete(vocabulary);
  return vocabulary;
}

}  // namespace nibble::model
