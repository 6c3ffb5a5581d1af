// The reader every container makes: mapped files and the tensors found in them.
#pragma once

#include <deque>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/mapped_file.h"
#include "container/checkpoint.h"

namespace nibble::container {

struct CheckpointContents {
  Kind kind{};
  std::filesystem::path path;
  std::vector<std::shared_ptr<const MappedFile>> files;
  std::vector<TensorEntry> tensors;  // views into `files` or `laid_out`, shards in order
  std::deque<Tensor> laid_out;       // what the files hold in another order
  Metadata metadata;
  json::Value config;
};

// The file whose bytes these are; null for others.
const MappedFile* file_of(const CheckpointContents& contents, std::span<const std::byte> bytes);

// Throws Error{kFormat} when two tensors have the same name.
std::unique_ptr<CheckpointReader> make_reader(CheckpointContents contents);

// Puts the tensors of shard `shard`, parsed from its mapped bytes, behind those already there.
void append_tensors(std::vector<TensorEntry>& all, std::vector<TensorEntry> tensors, int shard);

}  // namespace nibble::container
