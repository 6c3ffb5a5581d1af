#include "model/source.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "container/gguf/vocabulary.h"
#include "encoding/encoding.h"
#include "model/arch.h"
#include "model/rope.h"

namespace nibble::model {

namespace {

using container::CheckpointReader;
using container::Kind;

// The weights of a quantized folder lie in its scheme's own tensors; read as plain ones they would be noise. A null
// means none.
void refuse_quantized(const json::Value& config) {
  const json::Value* quantization = config.find("quantization_config");
  if (quantization == nullptr || quantization->is_null()) return;
  const std::string scheme = quantization->is_object() ? quantization->get("quant_method", "") : "";
  fail(ErrorCode::kUnsupported,
       "config.json has a 'quantization_config' of method '{}': quantized Hugging Face folders are not read; take the "
       "unquantized model",
       scheme.empty() ? "unknown" : scheme);
}

ModelSpec describe_hf(const CheckpointReader& reader) {
  const json::Value& config = reader.config();
  refuse_quantized(config);
  const std::string type = config.get("model_type", "");
  if (type.empty()) fail(ErrorCode::kFormat, "config.json names no 'model_type'");
  ModelSpec spec = arch_by_model_type(type).from_hf(config);
  if (spec.name.empty()) spec.name = std::filesystem::weakly_canonical(reader.folder()).filename().string();
  return spec;
}

ModelSpec describe(const CheckpointReader& reader) {
  if (reader.kind() == Kind::kHuggingFace) return describe_hf(reader);
  if (reader.kind() == Kind::kGguf) {
    return arch_by_name(reader.metadata().get_string("general.architecture")).from_gguf(reader.metadata());
  }
  fail(ErrorCode::kUnsupported, "a {} alone says nothing about the network, and there is no config.json beside it",
       container::kind_name(reader.kind()));
}

// Canonical row of each head from GGUF's order: pair (2i, 2i+1) there is (i, i + half) here.
std::vector<std::int32_t> rope_row_map(std::int64_t rows, int n_heads) {
  const std::int64_t head = rows / n_heads;
  std::vector<std::int32_t> map(static_cast<std::size_t>(rows));
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t in_head = row % head;
    const std::int64_t half = head / 2;
    map[static_cast<std::size_t>(row)] =
        static_cast<std::int32_t>(row - in_head + 2 * (in_head % half) + in_head / half);
  }
  return map;
}

SourceWeight bind(const CheckpointReader& reader, const WeightSlot& slot) {
  SourceWeight weight;
  const bool gguf = reader.kind() == Kind::kGguf;
  const std::string& name = gguf ? slot.gguf_name : slot.hf_name;
  if (name.empty()) return weight;
  weight.entry = slot.optional ? reader.find(name) : &reader.at(name);
  if (weight.entry == nullptr) return weight;
  const TensorView& view = weight.entry->view;
  if (view.shape != slot.shape) {
    fail(ErrorCode::kFormat, "tensor '{}' has shape {}, expected {}", name, view.shape.to_string(),
         slot.shape.to_string());
  }
  with_context(format_text("tensor '{}'", name), [&] { encoding::validate(view); });
  if (gguf && slot.gguf_rope_heads > 0) weight.row_map = rope_row_map(slot.shape.dims()[0], slot.gguf_rope_heads);
  if (gguf) weight.add = -slot.gguf_add;
  return weight;
}

// What the presence of tensors decides.
void settle(ModelSpec& spec) {
  if (spec.find(Role::kOutput, -1) == nullptr) spec.tied = true;
  for (int layer = 0; layer < spec.n_layers(); ++layer) {
    BlockSpec& block = spec.blocks[static_cast<std::size_t>(layer)];
    const auto biased = [&](Role role) { return spec.find(role, layer, true) != nullptr; };
    block.qkv_bias = biased(Role::kAttnQ) || biased(Role::kAttnK) || biased(Role::kAttnV);
    block.output_bias = biased(Role::kAttnOutput);
    block.ffn_bias = biased(Role::kFfnGate) || biased(Role::kFfnUp) || biased(Role::kFfnDown);
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

void ModelSource::bind_weights() {
  ModelSpec& spec = spec_;
  spec = describe(*reader_);
  validate(spec);
  std::vector<WeightSlot> slots;
  for (WeightSlot& slot : spec.weights) {
    SourceWeight weight = bind(*reader_, slot);
    if (weight.entry == nullptr && slot.optional) continue;
    slot.optional = false;
    slots.push_back(std::move(slot));
    weights_.push_back(std::move(weight));
  }
  spec.weights = std::move(slots);
  settle(spec);
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    if (spec.weights[i].role != Role::kRopeFactors || weights_[i].entry == nullptr) continue;
    std::vector<float> factors(static_cast<std::size_t>(spec.rope.dims / 2));
    read_rows(i, 0, 1, factors.data());
    spec.rope.factors = std::move(factors);
  }
  validate(spec);
}

void ModelSource::read_rows(std::size_t slot, std::int64_t row_begin, std::int64_t row_end, float* out) const {
  const SourceWeight& weight = weights_[slot];
  if (weight.entry == nullptr) {
    const std::vector<float> factors = rope_factors(spec_.rope);
    std::memcpy(out, factors.data(), factors.size() * sizeof(float));
    return;
  }
  const TensorView& view = weight.entry->view;
  const std::int64_t cols = view.cols();
  if (weight.row_map.empty()) {
    encoding::decode_rows(view, row_begin, row_end, out);
  } else if (view.shape.rank() == 1) {
    std::vector<float> stored(static_cast<std::size_t>(cols));
    encoding::decode_rows(view, 0, 1, stored.data());
    for (std::size_t i = 0; i < stored.size(); ++i) out[i] = stored[static_cast<std::size_t>(weight.row_map[i])];
  } else {
    for (std::int64_t row = row_begin; row < row_end; ++row) {
      const std::int64_t at = weight.row_map[static_cast<std::size_t>(row)];
      encoding::decode_rows(view, at, at + 1, out + (row - row_begin) * cols);
    }
  }
  if (weight.add != 0) {
    for (std::int64_t i = 0; i < (row_end - row_begin) * cols; ++i) out[i] += weight.add;
  }
}

token::Vocabulary ModelSource::vocabulary() const {
  if (reader_->kind() == Kind::kGguf) return container::gguf::read_vocabulary(reader_->metadata());
  return token::load_vocabulary(reader_->folder());
}

}  // namespace nibble::model
