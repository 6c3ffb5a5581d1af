// Files of weights behind one face: what is in them, and how one is written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "container/metadata.h"
#include "json/json.h"
#include "tensor/tensor.h"

namespace nibble::container {

enum class Kind : std::uint8_t { kHuggingFace, kSafetensors, kGguf };
std::string_view kind_name(Kind kind);  // "Hugging Face folder", "safetensors file", "GGUF file"

// One logical tensor, under the name the file gives it.
struct TensorEntry {
  std::string name;
  TensorView view;           // into the mapped files; shape outermost first (GGUF's dims reversed)
  int shard = 0;             // index into files()
  std::uint64_t offset = 0;  // absolute, in that file, of the first part
};

// An opened checkpoint: index read and validated (every offset, size and count), data mapped. Immutable and
// thread-safe.
class CheckpointReader {
 public:
  virtual ~CheckpointReader() = default;
  virtual Kind kind() const = 0;
  virtual const std::filesystem::path& path() const = 0;             // as given to open()
  std::filesystem::path folder() const;                              // path() or, of a file, the folder it lies in
  virtual std::span<const std::filesystem::path> files() const = 0;  // all shards
  virtual std::span<const TensorEntry> tensors() const = 0;          // in file order
  const TensorEntry* find(std::string_view name) const;              // null when absent; binary search
  const TensorEntry& at(std::string_view name) const;                // throws Error{kNotFound} naming file and tensor
  // GGUF's key-value pairs; empty for the others (safetensors' __metadata__ strings appear as strings).
  virtual const Metadata& metadata() const = 0;
  // config.json of a Hugging Face folder, null value otherwise.
  virtual const json::Value& config() const = 0;
  // Lets the pages of a tensor go after it was read; a hint.
  virtual void drop(const TensorEntry& entry) const = 0;
  virtual void will_need(const TensorEntry& entry) const = 0;
  std::uint64_t file_bytes() const;  // of all shards: the numerator of bits per weight

 protected:
  void
  build_index();  // of find(); called by the constructor of a reader once tensors() is complete; refuses duplicates

 private:
  std::vector<std::pair<std::string_view, const TensorEntry*>> index_;  // sorted by name
};

// Opens a Hugging Face folder (config.json, *.safetensors with or without an index; of quantized ones those whose
// scheme is read give logical tensors, others the tensors as they lie), a .safetensors file, or a .gguf file (the first
// shard of a split one), told apart by content and not by name. Throws Error naming file, tensor and offset.
std::unique_ptr<CheckpointReader> open(const std::filesystem::path& path);
// The same to compute with: a .safetensors file is opened with the config.json beside it, as a Hugging Face folder of
// that file or, where the folder's index names it, of all shards. Without a config.json it stays a file.
std::unique_ptr<CheckpointReader> open_model(const std::filesystem::path& path);

// What a file to be written will contain: known in full before the first byte.
struct PlannedTensor {
  std::string name;
  const encoding::EncodingInfo* encoding = nullptr;
  Shape shape;
  const encoding::ActivationInfo* inputs = nullptr;  // how those of a linear are to be rounded; null: not at all
};

// Writes one file: constructed with everything but the data (offsets are fixed and disk is reserved then), filled in
// any order from any thread, and visible under its name only after commit().
class CheckpointWriter {
 public:
  virtual ~CheckpointWriter() = default;
  virtual std::uint64_t data_bytes() const = 0;
  virtual std::uint64_t file_bytes() const = 0;
  // Bytes [offset, offset + bytes.size()) of tensor `index` of the plan. Thread-safe.
  virtual void write(std::size_t index, std::uint64_t offset, std::span<const std::byte> bytes) = 0;
  // All of tensor `index`: the way for those that lie in several parts. Thread-safe.
  virtual void write_tensor(std::size_t index, const TensorView& tensor);
  // Moves numbers of a tensor that lies in several parts to the nearest ones that the file can say. Thread-safe.
  virtual void settle(Tensor& /*tensor*/) const {}
  virtual void commit() = 0;  // fsync and rename
};

// GGUF v3. Keeps the order of `tensors`; data aligned to general.alignment (32 unless the metadata says otherwise).
std::unique_ptr<CheckpointWriter> create_gguf(const std::filesystem::path& path, const Metadata& metadata,
                                              std::vector<PlannedTensor> tensors);
// The size of the file that create_gguf() would make.
std::uint64_t gguf_bytes(const Metadata& metadata, const std::vector<PlannedTensor>& tensors);
// One safetensors file; `metadata` must hold strings only.
std::unique_ptr<CheckpointWriter> create_safetensors(const std::filesystem::path& path, const Metadata& metadata,
                                                     std::vector<PlannedTensor> tensors);
// The weights of a Hugging Face folder: model.safetensors, or, where they take more than `shard_bytes` (of data),
// model-00001-of-0000N.safetensors and the index that places each tensor. A tensor is never cut, so one larger than a
// shard makes a larger shard. Files appear one by one in commit(): write into an AtomicFolder.
inline constexpr std::uint64_t kShardBytes = 5'000'000'000;  // Hugging Face's default
std::unique_ptr<CheckpointWriter> create_hf_weights(const std::filesystem::path& folder, const Metadata& metadata,
                                                    const std::vector<PlannedTensor>& tensors,
                                                    std::uint64_t shard_bytes = kShardBytes);

}  // namespace nibble::container
