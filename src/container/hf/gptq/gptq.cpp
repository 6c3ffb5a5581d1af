// GPTQ checkpoints, as AutoGPTQ, GPTQModel and transformers have them: X.qweight, X.qzeros, X.scales, X.g_idx
// (qweight.h). "gptq" stores zeros less one, so that it has no zero of 0; "gptq_v2" stores them as they are.
#include <algorithm>
#include <set>

#include "base/error.h"
#include "container/hf/qweight.h"
#include "container/hf/scheme.h"
#include "encoding/affine.h"

namespace nibble::container::hf::gptq {

namespace {

std::string checkpoint_format(const json::Value& quantization) {
  const std::string format = quantization.get("format", "gptq");
  return quantization.get("checkpoint_format", format);
}

// Those of all modules and those that "dynamic" gives some: "+:regex" or "regex" -> {"bits": ..}; "-:regex" leaves
// modules plain.
std::vector<QweightForm::Sizes> all_sizes(const json::Value& quantization) {
  std::vector<QweightForm::Sizes> sizes = {{quantization.get("bits", 0), quantization.get("group_size", -1)}};
  const json::Value* dynamic = quantization.find("dynamic");
  if (dynamic == nullptr || !dynamic->is_object()) return sizes;
  for (const auto& [pattern, values] : dynamic->as_object()) {
    if (pattern.starts_with("-:") || !values.is_object()) continue;
    const QweightForm::Sizes usual = sizes.front();
    sizes.push_back({values.get("bits", usual.bits), values.get("group_size", usual.group)});
  }
  return sizes;
}

std::string unread(const json::Value& quantization) {
  const std::string format = checkpoint_format(quantization);
  if (format != "gptq" && format != "gptq_v2") return format_text("'checkpoint_format' {}", format);
  if (quantization.get("is_marlin_format", false)) return "'is_marlin_format'";
  const std::string words = quantization.get("pack_dtype", "int32");
  if (words != "int32") return format_text("'pack_dtype' {}", words);
  for (const auto& [bits, group] : all_sizes(quantization)) {
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8) return format_text("'bits' {}", bits);
  }
  return "";
}

void join(const json::Value& quantization, CheckpointContents& contents) {
  QweightForm form;
  form.packing = QweightPacking::kInputs;
  form.zero_offset = checkpoint_format(quantization) == "gptq" ? 1 : 0;
  form.sizes = all_sizes(quantization);
  join_qweights(contents, form);
}

std::vector<PlannedTensor> lay_out(const PlannedTensor& tensor) {
  const encoding::AffineParams& params = tensor.encoding->affine;
  const std::string stem = tensor.name.substr(0, tensor.name.rfind('.'));
  const std::int64_t rows = tensor.shape.rows(), cols = tensor.shape.cols();
  const std::int64_t groups = encoding::groups_per_row(params, cols);
  const encoding::EncodingInfo& i32 = encoding::get("i32");
  return {{stem + ".qweight", &i32, {cols * params.bits / 32, rows}},
          {stem + ".qzeros", &i32, {groups, rows * params.bits / 32}},
          {stem + ".scales", &encoding::get(dtype_name(params.scale_dtype)), {groups, rows}},
          {stem + ".g_idx", &i32, {cols}}};
}

template <int kZeroOffset>
void pack(const TensorView& tensor, std::span<const std::span<std::byte>> files) {
  const encoding::AffineParams& params = tensor.encoding->affine;
  const std::int64_t rows = tensor.rows(), cols = tensor.cols();
  const std::int64_t groups = encoding::groups_per_row(params, cols);
  using Word = std::array<std::byte, 4>;
  transpose(reinterpret_cast<const Word*>(tensor.data().data()), rows, cols * params.bits / 32,
            reinterpret_cast<Word*>(files[0].data()));
  std::vector<std::uint8_t> zeros = stored_zeros(tensor), by_group(zeros.size());
  transpose(zeros.data(), rows, groups, by_group.data());
  for (std::int64_t g = 0; g < groups; ++g) {
    std::uint8_t* row = by_group.data() + g * rows;
    for (std::int64_t n = 0; n < rows; ++n) {
      if (row[n] < kZeroOffset)
        fail(ErrorCode::kInternal, "row {}, group {}: a zero of {} is written as 'gptq'", n, g, row[n]);
      row[n] = static_cast<std::uint8_t>(row[n] - kZeroOffset);
    }
    encoding::pack_codes(params.bits, row, rows, files[1].data() + g * rows * params.bits / 8);
  }
  transpose_scales(tensor, files[2]);
  const Part* index = tensor.find(PartRole::kGroupIndex);
  const std::byte* listed = index != nullptr ? index->bytes.data() : nullptr;
  for (std::int64_t k = 0; k < cols; ++k) {
    const auto group = static_cast<std::int32_t>(encoding::group_of_column(params, cols, listed, k));
    std::memcpy(files[3].data() + 4 * k, &group, 4);
  }
}

constexpr double kUsualDamping = 0.01;

// A regular expression that matches a module's name and no longer one.
std::string exactly(const std::string& module) {
  std::string text = "^";
  for (const char c : module) text += c == '.' ? std::string("\\.") : std::string(1, c);
  return text + "$";
}

void set_sizes(const encoding::AffineParams& params, json::Value& value) {
  value.set("bits", params.bits);
  value.set("group_size", params.granularity == encoding::Granularity::kGroup ? params.group : std::int64_t{-1});
  value.set("sym", params.symmetric);
}

json::Value config(std::string_view format, const QuantizedWeights& weights) {
  const encoding::EncodingInfo& type = usual_type(weights);
  json::Value value = json::Object{{"quant_method", "gptq"}, {"checkpoint_format", std::string(format)}};
  set_sizes(type.affine, value);
  value.set("desc_act", type.affine.group_index);
  value.set("static_groups", false);
  value.set("true_sequential", true);
  value.set("lm_head", false);
  value.set("damp_percent", weights.damping > 0 ? weights.damping : kUsualDamping);  // loaders refuse 0
  value.set("pack_dtype", "int32");
  json::Object dynamic;
  for (const std::string& module : weights.kept) {
    if (module != kHeadModule) dynamic.emplace_back("-:" + exactly(module), json::Object{});
  }
  for (const PlannedTensor& tensor : weights.tensors) {
    if (tensor.encoding == &type) continue;
    json::Value sizes = json::Object{};
    set_sizes(tensor.encoding->affine, sizes);
    dynamic.emplace_back("+:" + exactly(module_of(tensor.name)), sizes);
  }
  if (!dynamic.empty()) value.set("dynamic", std::move(dynamic));
  value.set("meta", json::Object{{"quantizer", json::Array{"nibble"}}, {"method", weights.method}});
  return value;
}

template <bool kSecond>
json::Value config_of(const QuantizedWeights& weights) {
  return config(kSecond ? "gptq_v2" : "gptq", weights);
}

constexpr Dtype kScales[] = {Dtype::kF16};

template <bool kSecond>
constexpr Format kFormat = {
    .name = kSecond ? "gptq_v2" : "gptq",
    .bits = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 8,
    .per_channel = true,
    .per_group = true,
    .indexed = true,
    .scales = kScales,
    .least_zero = kSecond ? 0 : 1,
    .row_bits = 32,
    .col_bits = 32,
    .lay_out = lay_out,
    .pack = pack<kSecond ? 0 : 1>,
    .config = config_of<kSecond>,
    .copy_of_config = "quantize_config.json",
};

}  // namespace

std::span<const Scheme> entries() {
  static constexpr Format kFormats[] = {kFormat<false>, kFormat<true>};
  static constexpr Scheme kSchemes[] = {{"gptq", unread, join, kFormats}};
  return kSchemes;
}

}  // namespace nibble::container::hf::gptq
