// The weights of a gated decoder under the names most architectures share.
#pragma once

#include "model/model_spec.h"

namespace nibble::model {

// What GGUF's dialect of an architecture does to the weights (formats: RoPE layout).
struct GgufDialect {
  bool interleaved_rope = false;  // rows of q and k are stored in pair order
};

// Fills spec.weights from the rest of the spec. `from_gguf` marks as optional what only the file's tensors tell: head,
// biases, rope factors.
void add_decoder_weights(ModelSpec& spec, const GgufDialect& dialect, bool from_gguf);

}  // namespace nibble::model
