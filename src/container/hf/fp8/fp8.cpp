// FP8 (E4M3) with scales beside the weights. Hugging Face's "fp8": X.weight_scale_inv, which
// multiplies in spite of its name, for blocks of `weight_block_size` or for the whole; "fbgemm_fp8": X.weight_scale of
// each row; "modelopt" of algorithm FP8: X.weight_scale of the whole.
// Inputs are FP8, too: of "fp8" a scale for each token and the columns of a block (`activation_scheme` dynamic; without
// blocks for each token), or fixed in M.activation_scale or M.input_scale of the module (static); of "fbgemm_fp8" a
// scale for each token, whose bound `activation_scale_ub` is read over; of "modelopt" fixed in M.input_scale.
#include "base/format.h"
#include "container/hf/scaled_floats.h"
#include "container/hf/scheme.h"
#include "encoding/activation.h"
#include "encoding/scaled.h"

namespace nibble::container::hf::fp8 {

namespace {

constexpr std::string_view kDynamic = "dynamic", kStatic = "static";
constexpr std::string_view kInputScales[] = {".activation_scale", ".input_scale"};

std::string scheme_of(const json::Value& quantization) {
  return quantization.get("activation_scheme", std::string(kDynamic));
}

bool has_power_scales(const json::Value& quantization) { return quantization.get("scale_fmt", "") == "ue8m0"; }

// `group`: columns that share a scale; 0: all.
const encoding::ActivationInfo* dynamic_inputs(std::int64_t group, bool powers) {
  return &encoding::get_activation(
      format_text("fp8-{}{}", group > 0 ? format_text("g{}", group) : "token", powers ? "-e8m0" : ""));
}

std::string unread_block(const json::Value& quantization) {
  const std::string scheme = scheme_of(quantization);
  if (scheme != kDynamic && scheme != kStatic) return format_text("'activation_scheme' {}", scheme);
  const std::string fmt = quantization.get("fmt", "e4m3");
  return fmt == "e4m3" || fmt == "float8_e4m3fn" ? "" : format_text("'fmt' {}", fmt);
}

void join_block(const json::Value& quantization, CheckpointContents& contents) {
  const json::Value* block = quantization.find("weight_block_size");
  std::vector<Tile> tiles = {kPerTensor, kPerChannel};
  if (block != nullptr && !block->is_null()) tiles = {read_tile(quantization, "weight_block_size")};
  const bool fixed = scheme_of(quantization) == kStatic, powers = has_power_scales(quantization);
  for (Tile& tile : tiles)
    tile.inputs = fixed ? &encoding::get_activation("fp8-tensor") : dynamic_inputs(tile.cols, powers);
  join_fp8(contents.tensors, "_scale_inv", tiles, powers, kInputScales);
}

// --- writing, as DeepSeek V3 lies ---

std::vector<PlannedTensor> lay_out(const PlannedTensor& tensor) {
  const encoding::ScaledParams& params = tensor.encoding->scaled;
  const Shape scales = encoding::scaled_scales_shape(params, tensor.shape);
  return {{tensor.name, &encoding::get("f8_e4m3"), tensor.shape},
          {tensor.name + "_scale_inv", &encoding::get(dtype_name(params.scale_dtype)), {scales[1], scales[2]}}};
}

json::Value config(const QuantizedWeights& weights) {
  const encoding::ScaledParams& params = usual_type(weights).scaled;
  json::Array kept;
  for (const std::string& module : weights.kept) kept.emplace_back(module);
  json::Value value = json::Object{{"quant_method", "fp8"},
                                   {"fmt", "e4m3"},
                                   {"activation_scheme", "dynamic"},
                                   {"weight_block_size", json::Array{params.tile_rows, params.tile_cols}},
                                   {"modules_to_not_convert", std::move(kept)}};
  if (params.scale_dtype == Dtype::kF8E8m0) value.set("scale_fmt", "ue8m0");
  return value;
}

// What every folder of this format says of the inputs.
const encoding::ActivationInfo* inputs_of(const encoding::EncodingInfo& weights) {
  return dynamic_inputs(weights.scaled.tile_cols, weights.scaled.scale_dtype == Dtype::kF8E8m0);
}
bool takes_inputs(const encoding::EncodingInfo& weights, const encoding::ActivationInfo& inputs) {
  return weights.family == encoding::Family::kScaled && &inputs == inputs_of(weights);
}

constexpr Dtype kScales[] = {Dtype::kF32};
constexpr FloatType kFloats[] = {
    {"fp8-block{R}x{C}", {encoding::FloatCode::kE4m3, kAnyTile, kAnyTile, Dtype::kF32}},
    {"fp8-block128-e8m0", {encoding::FloatCode::kE4m3, 128, 128, Dtype::kF8E8m0}},
};
constexpr Format kFormats[] = {{.name = "fp8",
                                .scales = kScales,
                                .floats = kFloats,
                                .takes_inputs = takes_inputs,
                                .inputs_of_all = inputs_of,
                                .lay_out = lay_out,
                                .pack = copy_parts,
                                .config = config}};

std::string unread_rows(const json::Value& /*quantization*/) { return ""; }
void join_rows(const json::Value& /*quantization*/, CheckpointContents& contents) {
  join_fp8(contents.tensors, "_scale", {{kPerChannel.rows, kPerChannel.cols, dynamic_inputs(0, false)}}, false);
}

std::string unread_modelopt(const json::Value& quantization) {
  const std::string algorithm = quantization.get("quant_algo", "unknown");
  return algorithm == "FP8" ? "" : format_text("'quant_algo' {}", algorithm);
}
void join_modelopt(const json::Value& /*quantization*/, CheckpointContents& contents) {
  const Tile whole = {kPerTensor.rows, kPerTensor.cols, &encoding::get_activation("fp8-tensor")};
  join_fp8(contents.tensors, "_scale", {whole}, false);
}

}  // namespace

std::span<const Scheme> entries() {
  static constexpr Scheme kSchemes[] = {{"fp8", unread_block, join_block, kFormats},
                                        {"fbgemm_fp8", unread_rows, join_rows},
                                        {"modelopt", unread_modelopt, join_modelopt}};
  return kSchemes;
}

}  // namespace nibble::container::hf::fp8
