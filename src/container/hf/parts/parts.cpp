// "nibble": the parts of whatever encoding a tensor has, as they are (docs/quantized-folders.md). Tensor X lies in
// X.codes, X.scales, X.zeros, ...; quantization_config says {"tensors": {X: {"encoding": name, "shape": [rows,
// cols], "inputs": name}}}, the last where inputs are rounded, whose scale and zero point, if fixed, lie in
// X.input_scale and X.input_zero. "online_rotation": true where the inputs of output and down projections are rotated
// as the model runs (ModelSpec::online_rotation).
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "container/hf/scaled_floats.h"
#include "container/hf/scheme.h"
#include "container/hf/static_inputs.h"
#include "encoding/encoding.h"

namespace nibble::container::hf::parts {

namespace {

constexpr std::int64_t kVersion = 1;
constexpr std::pair<PartRole, std::string_view> kNames[] = {{PartRole::kCodes, ".codes"},
                                                            {PartRole::kScales, ".scales"},
                                                            {PartRole::kZeros, ".zeros"},
                                                            {PartRole::kGroupIndex, ".g_idx"},
                                                            {PartRole::kCodebook, ".codebook"},
                                                            {PartRole::kOutliers, ".outliers"},
                                                            {PartRole::kOutlierColumns, ".outlier_columns"},
                                                            {PartRole::kSuperScales, ".super_scales"},
                                                            {PartRole::kGlobalScale, ".global_scale"}};

const std::string kInputScale = ".input_scale", kInputZero = ".input_zero";

std::string part_name(const std::string& tensor, PartRole role) {
  const auto* found = std::ranges::find(kNames, role, [](const auto& item) { return item.first; });
  return tensor + std::string(found->second);
}

std::string unread(const json::Value& quantization) {
  const std::int64_t version = quantization.get("version", 0);
  return version == kVersion ? "" : format_text("'version' {}", version);
}

Shape read_shape(const json::Value& value) {
  std::vector<std::int64_t> dims;
  for (const json::Value& dim : value.as_array()) dims.push_back(dim.as_int());
  return Shape(dims);
}

void join_tensor(TensorJoin& joined, const std::string& name, const json::Value& what) {
  TensorView view;
  view.encoding = &encoding::get(what.at("encoding").as_string());
  view.shape = with_context("shape", [&] { return read_shape(what.at("shape")); });
  TensorEntry* first = nullptr;
  for (const encoding::PartPlan& part : encoding::plan_parts(*view.encoding, view.shape)) {
    TensorEntry* entry = joined.find(part_name(name, part.role));
    if (entry == nullptr) fail(ErrorCode::kFormat, "tensor '{}' is not there", part_name(name, part.role));
    if (entry->view.encoding->dtype != part.dtype || entry->view.encoding->family != encoding::Family::kPlain ||
        entry->view.shape != part.shape) {
      fail(ErrorCode::kFormat, "tensor '{}' is {} of shape {}, {} takes {} of shape {}", entry->name,
           entry->view.encoding->name, entry->view.shape.to_string(), view.encoding->name, dtype_name(part.dtype),
           part.shape.to_string());
    }
    view.add_part(part.role, part.dtype, part.shape, entry->view.data());
    if (first == nullptr) {
      first = entry;
    } else {
      joined.absorb(*entry);
    }
  }
  encoding::validate(view);
  if (const json::Value* inputs = what.find("inputs"); inputs != nullptr) {
    const encoding::ActivationInfo& info = encoding::get_activation(inputs->as_string());
    view.inputs = read_inputs(joined, info, {name + kInputScale, name + kInputZero});
    if (const Part* columns = view.find(PartRole::kOutlierColumns)) view.inputs.kept = {columns->bytes};
  }
  first->view = view;
}

void join(const json::Value& quantization, CheckpointContents& contents) {
  TensorJoin joined(contents.tensors);
  const json::Object& tensors = quantization.at("tensors").as_object();
  for (const auto& [name, what] : tensors)
    with_context(format_text("quantization_config: '{}'", name),
                 [&, &key = name, &value = what] { join_tensor(joined, key, value); });
  joined.finish();
  for (TensorEntry& entry : contents.tensors) {
    if (entry.view.n_parts > 1) entry.name.resize(entry.name.rfind('.'));
  }
}

std::vector<PlannedTensor> lay_out(const PlannedTensor& tensor) {
  std::vector<PlannedTensor> files;
  for (const encoding::PartPlan& part : encoding::plan_parts(*tensor.encoding, tensor.shape))
    files.push_back({part_name(tensor.name, part.role), &encoding::get(dtype_name(part.dtype)), part.shape});
  if (tensor.inputs == nullptr || !tensor.inputs->is_static()) return files;
  files.push_back({tensor.name + kInputScale, &encoding::get("f32"), {1}});
  if (!tensor.inputs->symmetric) files.push_back({tensor.name + kInputZero, &encoding::get("i32"), {1}});
  return files;
}

void pack(const TensorView& tensor, std::span<const std::span<std::byte>> files) {
  const auto n_parts = static_cast<std::size_t>(tensor.n_parts);
  copy_parts(tensor, files.first(n_parts));
  if (files.size() > n_parts) std::memcpy(files[n_parts].data(), &tensor.inputs.scale, 4);
  if (files.size() > n_parts + 1) std::memcpy(files[n_parts + 1].data(), &tensor.inputs.zero, 4);
}

json::Value config(const QuantizedWeights& weights) {
  json::Object tensors;
  for (const PlannedTensor& tensor : weights.tensors) {
    json::Array shape;
    for (const std::int64_t dim : tensor.shape.dims()) shape.emplace_back(dim);
    json::Object what = {{"encoding", tensor.encoding->name}, {"shape", std::move(shape)}};
    if (tensor.inputs != nullptr) what.emplace_back("inputs", tensor.inputs->name);
    tensors.emplace_back(tensor.name, std::move(what));
  }
  json::Value value = json::Object{
      {"quant_method", "nibble"}, {"version", kVersion}, {"method", weights.method}, {"tensors", std::move(tensors)}};
  if (weights.online_rotation) value.set("online_rotation", true);
  return value;
}

bool takes_inputs(const encoding::EncodingInfo& /*weights*/, const encoding::ActivationInfo& /*inputs*/) {
  return true;
}

constexpr Format kFormats[] = {{.name = "nibble",
                                .any_parts = true,
                                .takes_inputs = takes_inputs,
                                .lay_out = lay_out,
                                .pack = pack,
                                .config = config}};

}  // namespace

std::span<const Scheme> entries() {
  static constexpr Scheme kSchemes[] = {{"nibble", unread, join, kFormats}};
  return kSchemes;
}

}  // namespace nibble::container::hf::parts
