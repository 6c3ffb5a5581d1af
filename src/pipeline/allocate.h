// Which tensor gets which of its candidate types, so that the sum of their losses is least within a number of bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace nibble::pipeline {

// A type that a tensor may have: what it takes in the file, and what it costs in accuracy.
struct TypeCost {
  std::uint64_t bytes = 0;
  double loss = 0;
};

// One choice for each tensor, an index into its candidates, none of which is empty: the exact optimum where the bytes
// have a common measure of at least 1/65536 of what there is to distribute, else that of bytes rounded up to it, with
// the rest filled greedily. Of equal losses fewer bytes. Throws Error{kInvalidArgument} when even the smallest
// candidates take more than `budget_bytes`.
std::vector<std::size_t> allocate(std::span<const std::vector<TypeCost>> tensors, std::uint64_t budget_bytes);

}  // namespace nibble::pipeline
