// The error of a layer over inputs of which the gram is known: Σ over rows of (v - w) gram (v - w)ᵀ.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace nibble::method {

// (values - target) of n rows times a (cols, cols).
std::vector<float> gradient_of(std::int64_t n, std::int64_t cols, std::span<const float> values,
                               std::span<const float> target, std::span<const float> gram);
// Of each row: (values - target) · product; with product the gradient, the row's error.
std::vector<double> row_products(std::int64_t n, std::span<const float> values, std::span<const float> target,
                                 std::span<const float> product);
std::vector<double> row_errors(std::int64_t n, std::int64_t cols, std::span<const float> values,
                               std::span<const float> target, std::span<const float> gram);

}  // namespace nibble::method
