// compressed-tensors whose weights are integers: "pack-quantized" and weight-only "int-quantized".
#pragma once

#include <vector>

#include "container/hf/format.h"
#include "container/mapped_checkpoint.h"
#include "encoding/encoding.h"
#include "json/json.h"

namespace nibble::container::hf::compressed_tensors {

// What a group of the config says of its weights. Throws Error for what does not exist.
encoding::AffineParams read_integers(const json::Value& weights);
// Makes X.weight of each X.weight_packed (i32: rows of bit streams of signed codes + 2^(b-1), each filled up to a word)
// or X.weight (i8: signed codes) and its X.weight_scale, X.weight_zero_point, X.weight_g_idx. Each is of the first of
// `types` that its shapes fit.
void join_integers(CheckpointContents& contents, const std::vector<encoding::AffineParams>& types);

// Of a group of the config, and of tensors that are written.
json::Value describe_integers(const encoding::AffineParams& params);
std::vector<PlannedTensor> lay_out_integers(const PlannedTensor& tensor);
void pack_integers(const TensorView& tensor, std::span<const std::span<std::byte>> files);

}  // namespace nibble::container::hf::compressed_tensors
