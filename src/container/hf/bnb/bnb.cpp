// bitsandbytes. With 8 bits: eight_bits.h. With 4: X.weight u8 (bytes, 1), the codes of the flattened matrix;
// X.weight.absmax, the scales of its blocks; X.weight.quant_map f32 (16), the levels;
// X.weight.quant_state.bitsandbytes__nf4 (or __fp4) u8, a JSON object {quant_type, blocksize, dtype, shape} as text.
// With double quantization absmax is u8, nested_absmax f32 holds the super scales, nested_quant_map f32 (256) the
// dynamic map, and the object {nested_blocksize, nested_dtype, nested_offset} as well. Codes and scales go over as they
// are; the levels must be the usual ones.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "container/hf/bnb/eight_bits.h"
#include "container/hf/scaled_floats.h"
#include "container/hf/scheme.h"
#include "encoding/codebook.h"

namespace nibble::container::hf::bnb {

namespace {

using encoding::CodebookKind;
using encoding::CodebookParams;
using encoding::EncodingInfo;

constexpr std::string_view kState = ".quant_state.bitsandbytes__";
constexpr std::string_view kMap = ".quant_map", kScales = ".absmax";
constexpr std::string_view kNestedScales = ".nested_absmax", kNestedMap = ".nested_quant_map";
constexpr std::int64_t kMinBlock = 32, kMaxBlock = 4096;

std::string_view kind_name(CodebookKind kind) { return kind == CodebookKind::kNf4 ? "nf4" : "fp4"; }

bool loads_in(const json::Value& quantization, std::string_view bits) {
  const std::string key = format_text("load_in_{}", bits);
  return quantization.get(key, false) || quantization.get("_" + key, false);
}

std::string unread(const json::Value& quantization) {
  const bool four = loads_in(quantization, "4bit"), eight = loads_in(quantization, "8bit");
  if (four && eight) return "both 'load_in_4bit' and 'load_in_8bit'";
  if (eight) return unread_eight_bits(quantization);
  return four ? "" : "neither 'load_in_4bit' nor 'load_in_8bit'";
}

// --- reading ---

// What the text of a quant_state says.
struct State {
  CodebookParams params;
  Shape shape;
  float offset = 0;
};

State read_state(const TensorEntry& entry) {
  if (entry.view.encoding->name != "u8") fail(ErrorCode::kFormat, "it is in {}, not in u8", entry.view.encoding->name);
  const auto bytes = entry.view.data();
  const json::Value object = json::parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  State state;
  const std::string type = object.at("quant_type").as_string();
  if (!entry.name.ends_with(std::string(kState) + type) || (type != "nf4" && type != "fp4"))
    fail(ErrorCode::kFormat, "quant_type: '{}'", type);
  state.params.kind = type == "nf4" ? CodebookKind::kNf4 : CodebookKind::kFp4;
  state.params.block = object.at("blocksize").as_int();
  const std::int64_t block = state.params.block;
  if (block < kMinBlock || block > kMaxBlock || (block & (block - 1)) != 0)
    fail(ErrorCode::kUnsupported, "blocksize: blocks of {} weights are not read", block);
  std::vector<std::int64_t> dims;
  for (const json::Value& dim : object.at("shape").as_array()) dims.push_back(dim.as_int());
  state.shape = with_context("shape", [&] { return Shape(dims); });
  if (object.find("nested_offset") == nullptr) return state;
  state.params.double_quant = true;
  if (object.at("nested_blocksize").as_int() != encoding::kSuperBlock)
    fail(ErrorCode::kUnsupported, "nested_blocksize: {} instead of {}", object.at("nested_blocksize").as_int(),
         encoding::kSuperBlock);
  state.offset = static_cast<float>(object.at("nested_offset").as_number());
  if (!std::isfinite(state.offset)) fail(ErrorCode::kFormat, "nested_offset: {}", state.offset);
  return state;
}

// The tensor of a weight with that ending, of that type.
const TensorEntry& side_tensor(const TensorJoin& joined, const std::string& weight, std::string_view ending,
                               std::string_view type) {
  const TensorEntry* entry = joined.find(weight + std::string(ending));
  if (entry == nullptr)
    fail(ErrorCode::kFormat, "tensor '{}' is quantized, but '{}{}' is not there", weight, weight, ending);
  if (entry->view.encoding->name != type)
    fail(ErrorCode::kFormat, "tensor '{}' is in {}, not in {}", entry->name, entry->view.encoding->name, type);
  return *entry;
}

void check_levels(const TensorEntry& entry, std::span<const float> levels) {
  const auto bytes = entry.view.data();
  bool same = bytes.size() == levels.size_bytes();
  for (std::size_t i = 0; same && i < levels.size(); ++i) {
    float level;
    std::memcpy(&level, bytes.data() + i * 4, 4);
    same = level == levels[i];
  }
  if (!same) fail(ErrorCode::kUnsupported, "tensor '{}' holds other levels than the usual ones", entry.name);
}

void join_weight(CheckpointContents& contents, TensorJoin& joined, const TensorEntry& state_entry) {
  const std::string name = state_entry.name.substr(0, state_entry.name.rfind(kState));
  TensorEntry* weight = joined.find(name);
  if (weight == nullptr) fail(ErrorCode::kFormat, "tensor '{}' is there without '{}'", state_entry.name, name);
  const State state =
      with_context("tensor '" + state_entry.name + "'", [&state_entry] { return read_state(state_entry); });
  const bool nested = state.params.double_quant;
  const EncodingInfo& info = encoding::codebook_encoding(state.params);
  const TensorEntry& map = side_tensor(joined, name, kMap, "f32");
  check_levels(map, encoding::levels_of(state.params.kind));
  const TensorEntry& scales = side_tensor(joined, name, kScales, nested ? "u8" : "f32");

  TensorView view;
  view.encoding = &info;
  view.shape = state.shape;
  // Other types than u8 (bnb_4bit_quant_storage) hold the same bytes.
  const auto n_codes = static_cast<std::int64_t>(weight->view.n_bytes());
  view.add_part(PartRole::kCodes, Dtype::kU8, {n_codes}, weight->view.data());
  view.add_part(PartRole::kScales, scales.view.encoding->dtype, scales.view.shape, scales.view.data());
  if (nested) {
    const TensorEntry& nested_map = side_tensor(joined, name, kNestedMap, "f32");
    check_levels(nested_map, encoding::dynamic_map());
    const TensorEntry& supers = side_tensor(joined, name, kNestedScales, "f32");
    Tensor& offset = contents.laid_out.emplace_back(encoding::get("f32"), Shape{1});
    std::memcpy(offset.add_part(PartRole::kCodes, Dtype::kF32, {1}).data(), &state.offset, sizeof state.offset);
    view.add_part(PartRole::kSuperScales, Dtype::kF32, supers.view.shape, supers.view.data());
    view.add_part(PartRole::kGlobalScale, Dtype::kF32, {1}, offset.view().data());
    joined.absorb(nested_map);
    joined.absorb(supers);
  }
  with_context("tensor '" + name + "'", [&view] { encoding::validate(view); });
  weight->view = view;
  for (const TensorEntry* part : {&state_entry, &map, &scales}) joined.absorb(*part);
}

void join(const json::Value& quantization, CheckpointContents& contents) {
  if (loads_in(quantization, "8bit")) return join_eight_bits(quantization, contents);
  TensorJoin joined(contents.tensors);
  for (const TensorEntry& entry : contents.tensors) {
    if (entry.name.find(kState) != std::string::npos) join_weight(contents, joined, entry);
  }
  // What is left of a weight whose state is not there.
  for (const TensorEntry& entry : contents.tensors) {
    if (entry.view.n_parts == 1 && entry.name.ends_with("weight") && !dtype_is_float(entry.view.encoding->dtype))
      fail(ErrorCode::kFormat, "tensor '{}' is in {} and has no '{}{}nf4'", entry.name, entry.view.encoding->name,
           entry.name, kState);
  }
  joined.finish();
}

// --- writing ---

// The text of a quant_state is planned before its offset is known: this many bytes, the rest spaces.
constexpr std::int64_t kOffsetBytes = 32;

std::string state_text(const PlannedTensor& tensor, const float* offset) {
  const CodebookParams& params = tensor.encoding->codebook;
  json::Array shape;
  for (const std::int64_t dim : tensor.shape.dims()) shape.emplace_back(dim);
  json::Value state = json::Object{{"quant_type", std::string(kind_name(params.kind))},
                                   {"blocksize", params.block},
                                   {"dtype", "float32"},  // so that the package gives the exact values
                                   {"shape", std::move(shape)}};
  if (params.double_quant) {
    state.set("nested_blocksize", encoding::kSuperBlock);
    state.set("nested_dtype", "float32");
    state.set("nested_offset", offset != nullptr ? static_cast<double>(*offset) : 0.0);
  }
  return json::dump(state);
}

std::int64_t state_bytes(const PlannedTensor& tensor) {
  return static_cast<std::int64_t>(state_text(tensor, nullptr).size()) + kOffsetBytes;
}

bool is_eight_bits(const EncodingInfo& type) { return type.family == encoding::Family::kAffine; }

std::vector<PlannedTensor> lay_out(const PlannedTensor& tensor) {
  if (is_eight_bits(*tensor.encoding)) return lay_out_eight_bits(tensor);
  const CodebookParams& params = tensor.encoding->codebook;
  const EncodingInfo &u8 = encoding::get("u8"), &f32 = encoding::get("f32");
  const auto parts = encoding::plan_parts(*tensor.encoding, tensor.shape);
  const auto named = [&](std::string_view ending, const EncodingInfo& type, const Shape& shape) {
    return PlannedTensor{tensor.name + std::string(ending), &type, shape};
  };
  std::vector<PlannedTensor> files = {
      named("", u8, {parts[0].shape[0], 1}), named(kScales, params.double_quant ? u8 : f32, parts[1].shape),
      named(kMap, f32, {16}), named(std::string(kState).append(kind_name(params.kind)), u8, {state_bytes(tensor)})};
  if (!params.double_quant) return files;
  files.push_back(named(kNestedScales, f32, parts[2].shape));
  files.push_back(named(kNestedMap, f32, {256}));
  return files;
}

template <typename Values>
void copy_values(const Values& values, std::span<std::byte> out) {
  std::memcpy(out.data(), values.data(), out.size());
}

void pack(const TensorView& tensor, std::span<const std::span<std::byte>> files) {
  if (is_eight_bits(*tensor.encoding)) return pack_eight_bits(tensor, files);
  const CodebookParams& params = tensor.encoding->codebook;
  std::ranges::copy(tensor.parts[0].bytes, files[0].begin());
  std::ranges::copy(tensor.parts[1].bytes, files[1].begin());
  copy_values(encoding::levels_of(params.kind), files[2]);
  float offset = 0;
  if (params.double_quant) {
    std::memcpy(&offset, tensor.parts[3].bytes.data(), sizeof offset);
    std::ranges::copy(tensor.parts[2].bytes, files[4].begin());
    copy_values(encoding::dynamic_map(), files[5]);
  }
  const std::string text = state_text({"", tensor.encoding, tensor.shape}, &offset);
  if (text.size() > files[3].size()) fail(ErrorCode::kInternal, "a quant_state of {} bytes", text.size());
  std::ranges::fill(files[3], static_cast<std::byte>(' '));
  std::memcpy(files[3].data(), text.data(), text.size());
}

void settle(Tensor& tensor) {
  if (is_eight_bits(*tensor.view().encoding)) settle_eight_bits(tensor);
}

json::Value config(const QuantizedWeights& weights) {
  const EncodingInfo& type = usual_type(weights);
  const bool eight = is_eight_bits(type);
  json::Array kept;
  for (const std::string& module : weights.kept) kept.emplace_back(module);
  return json::Object{{"quant_method", "bitsandbytes"},
                      {"_load_in_4bit", !eight},
                      {"_load_in_8bit", eight},
                      {"load_in_4bit", !eight},
                      {"load_in_8bit", eight},
                      {"bnb_4bit_compute_dtype", "float32"},
                      {"bnb_4bit_quant_storage", "uint8"},
                      {"bnb_4bit_quant_type", std::string(kind_name(eight ? CodebookKind::kFp4 : type.codebook.kind))},
                      {"bnb_4bit_use_double_quant", !eight && type.codebook.double_quant},
                      {"llm_int8_enable_fp32_cpu_offload", false},
                      {"llm_int8_has_fp16_weight", false},
                      {"llm_int8_skip_modules", std::move(kept)},
                      {"llm_int8_threshold", eight ? weights.tensors.front().inputs->threshold : kUsualThreshold}};
}

constexpr Dtype kScales8[] = {Dtype::kF32};

}  // namespace

std::span<const Scheme> entries() {
  static constexpr Format kFormats[] = {{.name = "bnb",
                                         .bits = 1 << 8,
                                         .per_channel = true,
                                         .rounded_only = true,
                                         .scales = kScales8,
                                         .blocks = true,
                                         .takes_inputs = holds_rounded,
                                         .lay_out = lay_out,
                                         .pack = pack,
                                         .settle = settle,
                                         .config = config}};
  static constexpr Scheme kSchemes[] = {{"bitsandbytes", unread, join, kFormats}};
  return kSchemes;
}

}  // namespace nibble::container::hf::bnb
