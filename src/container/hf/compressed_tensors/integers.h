// compressed-tensors whose weights are integers: "pack-quantized", and "int-quantized" with or without inputs that are
// rounded.
#pragma once

#include <string>
#include <vector>

#include "container/hf/format.h"
#include "container/mapped_checkpoint.h"
#include "encoding/activation.h"
#include "encoding/encoding.h"
#include "json/json.h"

namespace nibble::container::hf::compressed_tensors {

// What a group of the config says of its weights, and of its inputs (null: they stay as they are). Throws Error for
// what does not exist.
struct IntegerGroup {
  encoding::AffineParams weights;
  const encoding::ActivationInfo* inputs = nullptr;
  std::vector<std::string> targets = {};  // modules, or kinds of them
};
// 32-bit words that hold so many codes.
inline std::int64_t words_for(std::int64_t codes, int bits) { return (codes * bits + 31) / 32; }
encoding::AffineParams read_integers(const json::Value& weights);
// Of inputs of integers or FP8; one scale that is made anew for all tokens of a batch is read as one for each token, so
// that what a token gives does not depend on its batch.
const encoding::ActivationInfo* read_input_type(const json::Value* activations);
// Makes X.weight of each X.weight_packed (i32: rows of bit streams of signed codes + 2^(b-1), each filled up to a word)
// or X.weight (i8: signed codes) and its X.weight_scale, X.weight_zero_point, X.weight_g_idx. Each is of the first of
// `groups` that its shapes fit. Inputs with fixed scales have them in M.input_scale, M.input_zero_point of the module.
void join_integers(CheckpointContents& contents, const std::vector<IntegerGroup>& groups);

// Of a group of the config, as the package's presets have it (without an observer: scales are a method's), and of
// tensors that are written.
json::Value describe_integers(const encoding::AffineParams& params);
json::Value describe_inputs(const encoding::ActivationInfo* inputs);
std::vector<PlannedTensor> lay_out_integers(const PlannedTensor& tensor);
void pack_integers(const TensorView& tensor, std::span<const std::span<std::byte>> files);

}  // namespace nibble::container::hf::compressed_tensors
