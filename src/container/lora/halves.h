// The two tensors of a pair, on their way between files and memory.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "container/lora/adapter.h"

namespace nibble::container::lora {

// One of the tensors of a pair by the end of its name.
struct HalfName {
  std::string_view end;
  bool is_b = false, embedding = false;
};

struct Halves {
  const TensorEntry *a = nullptr, *b = nullptr;
  bool embedding = false;
};

// By what stands before the end; tensors whose names end in `skipped` (empty: none) are passed over. Throws
// Error{kUnsupported} for a tensor that is neither, {kFormat} for one without the other.
std::map<std::string, Halves> find_halves(const CheckpointReader& reader, std::span<const HalfName> names,
                                          std::string_view skipped = {});

// The numbers of a tensor (rows, cols); throws Error{kFormat} naming it for another rank, NaN and infinities.
std::vector<float> read_matrix(const TensorEntry& entry);
std::vector<float> transposed(const std::vector<float>& matrix, std::int64_t rows, std::int64_t cols);

// Tensors to write, each (rows, cols) in f32.
struct OutputTensor {
  std::string name;
  std::int64_t rows = 0, cols = 0;
  std::vector<float> values;
};
std::vector<PlannedTensor> planned(const std::vector<OutputTensor>& tensors);
void write_all(CheckpointWriter& writer, const std::vector<OutputTensor>& tensors);

}  // namespace nibble::container::lora
