// Reading safetensors: one file's index from bytes, and single files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "container/checkpoint.h"

namespace nibble::container::safetensors {

// What one file says. Views point into the bytes it was parsed from.
struct Index {
  std::uint64_t data_offset = 0;
  Metadata metadata;                 // the strings of __metadata__
  std::vector<TensorEntry> tensors;  // in the order of their data
};

// Layout: u64 length of the header, the header, the data. The header is one JSON object, name -> {dtype, shape,
// data_offsets: [begin, end) in the data}, and perhaps "__metadata__" -> {string: string}. The data has no gaps, no
// overlaps and nothing behind it. Throws Error naming tensor and offset for everything else. Tensor names are not
// compared with each other here: make_reader() does that over all shards.
Index parse(std::span<const std::byte> bytes);

std::unique_ptr<CheckpointReader> open(const std::filesystem::path& path);

}  // namespace nibble::container::safetensors
