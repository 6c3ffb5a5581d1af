// GPTQ on the affine family (Frantar et al., arXiv 2210.17323; gptq.py of its reference).
#pragma once

#include <memory>

#include "method/quantizer.h"

namespace nibble::method::gptq {

// Needs job.statistics.gram. Throws Error{kInvalidArgument} when it is missing, of another size, not finite, or has a
// negative diagonal.
std::unique_ptr<Quantizer> make_affine(const Job& job);

}  // namespace nibble::method::gptq
