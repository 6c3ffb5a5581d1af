// GPTQ on the block types of GGML: the sweep of arXiv 2210.17323 against the grid that a file's blocks decode to.
#pragma once

#include <memory>

#include "method/quantizer.h"

namespace nibble::method::gptq {

// Scales and mins of a block are searched (method/search) on the weights as the sweep has left them when it comes to
// the block, weighted by the gram's diagonal; then its codes are rounded one by one, and the error of each is spread to
// all later columns. Needs job.statistics.gram; errors as those of make_hessian().
std::unique_ptr<Quantizer> make_block(const Job& job);

}  // namespace nibble::method::gptq
