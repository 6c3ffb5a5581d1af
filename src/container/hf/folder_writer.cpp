#include <string>

#include "base/atomic_file.h"
#include "base/checked.h"
#include "base/error.h"
#include "container/checkpoint.h"
#include "container/file_writer.h"
#include "encoding/encoding.h"
#include "json/json.h"

namespace nibble::container {

namespace {

namespace fs = std::filesystem;

std::uint64_t bytes_of(const PlannedTensor& tensor) { return encoding::tensor_bytes(*tensor.encoding, tensor.shape); }

// The tensors of each shard, in their order: a shard ends before the tensor that would make it too large.
std::vector<std::vector<std::size_t>> cut_shards(const std::vector<PlannedTensor>& tensors, std::uint64_t shard_bytes) {
  std::vector<std::vector<std::size_t>> shards(1);
  std::uint64_t used = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::uint64_t n_bytes = bytes_of(tensors[i]);
    if (!shards.back().empty() && checked_add(used, n_bytes) > shard_bytes) {
      shards.emplace_back();
      used = 0;
    }
    shards.back().push_back(i);
    used += n_bytes;
  }
  return shards;
}

class FolderWriter final : public CheckpointWriter {
 public:
  FolderWriter(const fs::path& folder, const Metadata& metadata, const std::vector<PlannedTensor>& tensors,
               std::uint64_t shard_bytes)
      : folder_(folder), places_(tensors.size()) {
    const auto shards = cut_shards(tensors, shard_bytes);
    json::Object weight_map;
    for (std::size_t s = 0; s < shards.size(); ++s) {
      const std::string name = shards.size() == 1
                                   ? "model.safetensors"
                                   : format_text("model-{:05}-of-{:05}.safetensors", s + 1, shards.size());
      std::vector<PlannedTensor> here;
      for (const std::size_t i : shards[s]) {
        places_[i] = {s, here.size()};
        here.push_back(tensors[i]);
        weight_map.emplace_back(tensors[i].name, name);
      }
      shards_.push_back(create_safetensors(folder / name, metadata, std::move(here)));
    }
    if (shards.size() == 1) return;
    index_ = json::Object{{"metadata", json::Object{{"total_size", data_bytes()}}}, {"weight_map", weight_map}};
  }

  std::uint64_t data_bytes() const override {
    std::uint64_t sum = 0;
    for (const auto& shard : shards_) sum += shard->data_bytes();
    return sum;
  }
  std::uint64_t file_bytes() const override {
    std::uint64_t sum = 0;
    for (const auto& shard : shards_) sum += shard->file_bytes();
    return sum;
  }
  void write(std::size_t index, std::uint64_t offset, std::span<const std::byte> bytes) override {
    const Place& place = places_.at(index);
    shards_[place.shard]->write(place.index, offset, bytes);
  }
  void commit() override {
    for (const auto& shard : shards_) shard->commit();
    if (!index_.is_null()) write_file_atomically(folder_ / "model.safetensors.index.json", json::dump(index_) + "\n");
  }

 private:
  struct Place {
    std::size_t shard = 0;
    std::size_t index = 0;  // within it
  };
  fs::path folder_;
  std::vector<Place> places_;
  std::vector<std::unique_ptr<CheckpointWriter>> shards_;
  json::Value index_;  // null: one file needs none
};

}  // namespace

std::unique_ptr<CheckpointWriter> create_hf_weights(const fs::path& folder, const Metadata& metadata,
                                                    const std::vector<PlannedTensor>& tensors,
                                                    std::uint64_t shard_bytes) {
  if (shard_bytes == 0) fail(ErrorCode::kInvalidArgument, "shards of 0 bytes");
  check_plan(tensors);
  return std::make_unique<FolderWriter>(folder, metadata, tensors, shard_bytes);
}

}  // namespace nibble::container
