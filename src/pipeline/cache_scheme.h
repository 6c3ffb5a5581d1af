// Folders that were made for a KV cache with fixed scales: how such a type is asked for, and what lies beside the
// weights.
#pragma once

#include <vector>

#include "container/checkpoint.h"
#include "encoding/activation.h"
#include "model/model_spec.h"
#include "nibble/quantize.h"
#include "pipeline/output_form.h"

namespace nibble::pipeline {

// How keys and values are rounded in the cache that the request names; null: it names none. Throws
// Error{kInvalidArgument} for a type whose scales are not fixed, and without a text to learn them from.
const encoding::ActivationInfo* chosen_cache(const QuantizeRequest& request);
// As choose_form(), in a format that has a place for the scales; weights may then stay plain, too.
OutputForm choose_cached_form(const QuantizeRequest& request);

// A number for the keys and one for the values of each block. Throws Error{kUnsupported} for latents.
std::vector<container::PlannedTensor> plan_cache_scales(const model::ModelSpec& spec,
                                                        const encoding::EncodingInfo& type);
// Those of the blocks, as the tensors of the writer from `first` on.
void write_cache_scales(const model::ModelSpec& spec, const encoding::EncodingInfo& type, std::size_t first,
                        container::CheckpointWriter& writer);

}  // namespace nibble::pipeline
