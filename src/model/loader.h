// From the weights of a source to a decoder that computes with them.
#pragma once

#include <cstdint>
#include <memory>

#include "base/exec_context.h"
#include "model/decoder.h"

namespace nibble::model {

// Fills all of `decoder`, which keeps the source; returns the bytes its weights take. Errors as Model::load().
std::uint64_t load_decoder(ExecContext& context, std::shared_ptr<const ModelSource> source, const LoadOptions& options,
                           Decoder& decoder);
// One block anew, from what its source says now.
void load_block(ExecContext& context, const LoadOptions& options, int layer, Decoder& decoder);

}  // namespace nibble::model
