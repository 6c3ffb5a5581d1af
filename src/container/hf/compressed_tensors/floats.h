// compressed-tensors whose weights are small floats: "float-quantized" (FP8), "mxfp8-quantized",
// "mxfp4-pack-quantized", "nvfp4-pack-quantized".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "container/hf/format.h"
#include "container/mapped_checkpoint.h"
#include "encoding/activation.h"
#include "encoding/encoding.h"
#include "json/json.h"

namespace nibble::container::hf::compressed_tensors {

// What a group of the config says of its weights, whose format is `format`: why they are not read, in words, empty when
// they are; and then their type, FP8 with scales in f32. Throws Error for what does not exist.
std::string unread_floats(const json::Value& weights, std::string_view format);
// Inputs of 4 bits are left as they are (null).
struct FloatGroup {
  encoding::ScaledParams weights;
  const encoding::ActivationInfo* inputs = nullptr;
};
FloatGroup read_floats(const json::Value& weights, const json::Value* activations, std::string_view format);
// Makes X.weight of each X.weight f8_e4m3 and X.weight_scale, and of each X.weight_packed u8 (rows, columns / 2) with
// X.weight_scale and, of nvfp4, X.weight_global_scale f32 (1). Each is of the first of `types` that its parts fit.
// Inputs with a fixed scale have it in M.input_scale of the module.
void join_floats(CheckpointContents& contents, const std::vector<FloatGroup>& types);

// The name of the package's format that holds them.
std::string_view float_format(const encoding::EncodingInfo& type);
// Of a group of the config.
json::Value describe_floats(const encoding::EncodingInfo& type);
bool float_takes_inputs(const encoding::EncodingInfo& weights, const encoding::ActivationInfo& inputs);
std::vector<PlannedTensor> lay_out_floats(const PlannedTensor& tensor);

}  // namespace nibble::container::hf::compressed_tensors
