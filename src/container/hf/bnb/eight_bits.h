// bitsandbytes with 8 bits, LLM.int8(): X.weight i8 (out, in), codes of -128 to 127; X.SCB f32 (out), the largest
// magnitude of each row; X.weight_format u8 (), 0: rows lie as they are. w = code * (SCB * 1/127), in f32, as the
// package's layer has them where it multiplies with floats. llm_int8_threshold T of the config: inputs of at least T in
// magnitude are not rounded.
#pragma once

#include <string>
#include <vector>

#include "container/hf/format.h"
#include "container/mapped_checkpoint.h"
#include "encoding/activation.h"
#include "encoding/encoding.h"
#include "json/json.h"

namespace nibble::container::hf::bnb {

inline constexpr double kUsualThreshold = 6;

// The f32 number x whose x * 1/127 is `scale`, of several the one with the shortest mantissa: the package's own, which
// come from f16. Of every 128 scales one has none: then the nearest, whose scale is the next f32 number.
float absmax_of(float scale);

// What of the config is not read, in its words.
std::string unread_eight_bits(const json::Value& quantization);
void join_eight_bits(const json::Value& quantization, CheckpointContents& contents);

// Linears of `weights` with inputs rounded so: can the config say it? A threshold of 0 leaves no input as it is.
bool holds_rounded(const encoding::EncodingInfo& weights, const encoding::ActivationInfo& inputs);
std::vector<PlannedTensor> lay_out_eight_bits(const PlannedTensor& tensor);
// Scales that have no SCB become the f32 number beside them.
void settle_eight_bits(Tensor& tensor);
void pack_eight_bits(const TensorView& tensor, std::span<const std::span<std::byte>> files);

}  // namespace nibble::container::hf::bnb
