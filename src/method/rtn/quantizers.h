// The quantizers behind `rtn`, one per family of encodings.
#pragma once

#include <memory>

#include "method/quantizer.h"

namespace nibble::method::rtn {

// By the encoding's own encode: nearest, whatever the rounding asked for.
std::unique_ptr<Quantizer> make_reference(const Job& job);
std::unique_ptr<Quantizer> make_block(const Job& job);
std::unique_ptr<Quantizer> make_affine(const Job& job);
std::unique_ptr<Quantizer> make_codebook(const Job& job);
// Scaled floats, min-max or, with any other range, the scale of each tile with least sum of importance * error^2.
std::unique_ptr<Quantizer> make_scaled(const Job& job);
std::unique_ptr<Quantizer> make_mxfp4_blocks(const Job& job);  // the same of GGUF's mxfp4

}  // namespace nibble::method::rtn
