// The writer every container makes: a header that is known in full, then tensors at fixed places.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "container/checkpoint.h"

namespace nibble::container {

// Where the data of one planned tensor goes.
struct Extent {
  std::uint64_t offset = 0;  // absolute
  std::uint64_t n_bytes = 0;
};

// Takes the disk space and writes `header` at the file's start; what neither header nor extents cover is zero.
std::unique_ptr<CheckpointWriter> make_writer(const std::filesystem::path& path, std::string_view header,
                                              std::vector<Extent> extents, std::uint64_t file_bytes);

// Throws Error{kInvalidArgument} for a tensor without name or encoding, of a shape its encoding cannot hold, or named
// twice.
void check_plan(std::span<const PlannedTensor> tensors);

}  // namespace nibble::container
