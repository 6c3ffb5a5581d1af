// FP8 (E4M3) with scales beside the weights. Hugging Face's "fp8": X.weight_scale_inv, which
// multiplies in spite of its name, for blocks of `weight_block_size` or for the whole; "fbgemm_fp8": X.weight_scale of
// each row; "modelopt" of algorithm FP8: X.weight_scale of the whole. Scales of activations are left alone.
#include "base/format.h"
#include "container/hf/scaled_floats.h"
#include "container/hf/scheme.h"
#include "encoding/scaled.h"

namespace nibble::container::hf::fp8 {

namespace {

std::string unread_block(const json::Value& quantization) {
  const std::string fmt = quantization.get("fmt", "e4m3");
  return fmt == "e4m3" || fmt == "float8_e4m3fn" ? "" : format_text("'fmt' {}", fmt);
}

void join_block(const json::Value& quantization, CheckpointContents& contents) {
  const json::Value* block = quantization.find("weight_block_size");
  std::vector<Tile> tiles = {kPerTensor, kPerChannel};
  if (block != nullptr && !block->is_null()) tiles = {read_tile(quantization, "weight_block_size")};
  join_fp8(contents.tensors, "_scale_inv", tiles, quantization.get("scale_fmt", "") == "ue8m0");
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

constexpr Dtype kScales[] = {Dtype::kF32};
constexpr FloatType kFloats[] = {
    {"fp8-block{R}x{C}", {encoding::FloatCode::kE4m3, kAnyTile, kAnyTile, Dtype::kF32}},
    {"fp8-block128-e8m0", {encoding::FloatCode::kE4m3, 128, 128, Dtype::kF8E8m0}},
};
constexpr Format kFormats[] = {
    {.name = "fp8", .scales = kScales, .floats = kFloats, .lay_out = lay_out, .pack = copy_parts, .config = config}};

std::string unread_rows(const json::Value& /*quantization*/) { return ""; }
void join_rows(const json::Value& /*quantization*/, CheckpointContents& contents) {
  join_fp8(contents.tensors, "_scale", {kPerChannel}, false);
}

std::string unread_modelopt(const json::Value& quantization) {
  const std::string algorithm = quantization.get("quant_algo", "unknown");
  return algorithm == "FP8" ? "" : format_text("'quant_algo' {}", algorithm);
}
void join_modelopt(const json::Value& /*quantization*/, CheckpointContents& contents) {
  join_fp8(contents.tensors, "_scale", {kPerTensor}, false);
}

}  // namespace

std::span<const Scheme> entries() {
  static constexpr Scheme kSchemes[] = {{"fp8", unread_block, join_block, kFormats},
                                        {"fbgemm_fp8", unread_rows, join_rows},
                                        {"modelopt", unread_modelopt, join_modelopt}};
  return kSchemes;
}

}  // namespace nibble::container::hf::fp8
