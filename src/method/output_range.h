// The clip search of AWQ (arXiv 2306.00978; auto_clip of its reference): ranges that keep what a group of columns adds
// to the output of the layer, where plain ranges keep the largest weight.
#pragma once

#include <cstdint>
#include <vector>

#include "encoding/affine.h"
#include "method/quantizer.h"

namespace nibble::method {

// The scale of each group of n rows, (n, groups), of an encoding by rows or groups. Of ranges that end at 1, 0.95 ...
// 0.55 of the largest magnitude the one with least (v - w) gram_g (v - w)ᵀ, gram_g the group's own part of the gram.
std::vector<encoding::ScaleZero> choose_scales_by_output(const encoding::AffineParams& params, const float* weights,
                                                         std::int64_t n_rows, std::int64_t cols,
                                                         std::span<const float> gram);

}  // namespace nibble::method
