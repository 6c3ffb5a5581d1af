// Reading GGUF: one file's index from bytes, and files with all their shards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "container/checkpoint.h"

namespace nibble::container::gguf {

// What one GGUF file says. Views point into the bytes it was parsed from.
struct Index {
  std::uint32_t version = 0;
  std::uint32_t alignment = 0;    // of tensor data
  std::uint64_t data_offset = 0;  // of the data section
  Metadata metadata;
  std::vector<TensorEntry> tensors;  // in file order
};

// Layout (little-endian): "GGUF", u32 version, u64 n_tensors, u64 n_kv; n_kv x {string key, u32 type, value}; n_tensors
// x {string name, u32 n_dims, u64 dims[] (contiguous one first), u32 type, u64 offset in the data section}; padding;
// data. Throws Error naming key or tensor and offset for everything that contradicts it, and allocates no more than a
// small multiple of the bytes given. Tensor names are not compared with each other here: make_reader() does that over
// all shards.
Index parse(std::span<const std::byte> bytes);

// Opens a file; the first shard of a split model opens all ("name-00001-of-00003.gguf"). The metadata is that of the
// first shard.
std::unique_ptr<CheckpointReader> open(const std::filesystem::path& path);

}  // namespace nibble::container::gguf
