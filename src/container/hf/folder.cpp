#include "container/hf/folder.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "container/detect.h"
#include "container/hf/scheme.h"
#include "container/mapped_checkpoint.h"
#include "container/safetensors/reader.h"

namespace nibble::container::hf {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kConfig = "config.json";
constexpr std::string_view kIndex = "model.safetensors.index.json";
constexpr std::string_view kSingle = "model.safetensors";

// What cannot be looked at counts as absent; opening a file says why.
bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::vector<fs::path> files_ending(const fs::path& folder, std::string_view ending) {
  std::vector<fs::path> found;
  std::error_code error;
  for (const auto& item : fs::directory_iterator(folder, error)) {
    if (item.path().filename().string().ends_with(ending)) found.push_back(item.path());
  }
  if (error) fail(ErrorCode::kIo, "cannot list '{}': {}", folder.string(), error.message());
  std::ranges::sort(found);
  return found;
}

void refuse_gguf_folder(const fs::path& folder) {
  const auto files = files_ending(folder, ".gguf");
  if (files.empty()) return;
  fail(ErrorCode::kNotFound, "'{}' is a folder of GGUF files; open one of them, such as '{}'", folder.string(),
       files.front().filename().string());
}

[[noreturn]] void no_weights(const fs::path& folder) {
  if (!files_ending(folder, ".bin").empty() || !files_ending(folder, ".pth").empty() ||
      !files_ending(folder, ".pt").empty()) {
    fail(ErrorCode::kUnsupported,
         "'{}' has its weights only as PyTorch files (.bin, .pth); convert them to safetensors first", folder.string());
  }
  refuse_gguf_folder(folder);
  fail(ErrorCode::kNotFound, "'{}' holds no weights: no {}, no {}", folder.string(), kSingle, kIndex);
}

// The weights of a folder without an index.
fs::path single_file(const fs::path& folder) {
  if (is_there(folder / kSingle)) return folder / kSingle;
  const auto files = files_ending(folder, ".safetensors");
  if (files.empty()) no_weights(folder);
  if (files.size() > 1) {
    fail(ErrorCode::kNotFound, "'{}' has {} safetensors files and no {} that says which belong together",
         folder.string(), files.size(), kIndex);
  }
  return files.front();
}

// Adds a shard and those of its tensors that `wanted` takes.
template <typename Wanted>
void open_shard(CheckpointContents& contents, const fs::path& path, Wanted wanted) {
  const auto file = MappedFile::open(path);
  with_context("'" + path.string() + "'", [&] {
    if (detect(file->bytes()) != Kind::kSafetensors) fail(ErrorCode::kFormat, "not a safetensors file");
    safetensors::Index index = safetensors::parse(file->bytes());
    std::erase_if(index.tensors, [&](const TensorEntry& entry) { return !wanted(entry); });
    if (contents.files.empty()) contents.metadata = std::move(index.metadata);
    append_tensors(contents.tensors, std::move(index.tensors), static_cast<int>(contents.files.size()));
    contents.files.push_back(file);
  });
}

json::Value read_json(const fs::path& path) {
  const auto file = MappedFile::open(path);
  return with_context("'" + path.string() + "'", [&] {
    refuse_foreign(file->bytes());
    return json::parse({reinterpret_cast<const char*>(file->bytes().data()), file->size()});
  });
}

using WeightMap = std::unordered_map<std::string, std::string>;  // tensor -> shard

WeightMap read_weight_map(const fs::path& path) {
  const json::Value index = read_json(path);
  return with_context("'" + path.string() + "'", [&] {
    WeightMap map;
    for (const auto& [tensor, shard] : index.at("weight_map").as_object()) {
      const std::string& name = shard.as_string();
      if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos) {
        fail(ErrorCode::kFormat, "weight_map: tensor '{}' lies in '{}', which is no file name", tensor, name);
      }
      if (!map.emplace(tensor, name).second) fail(ErrorCode::kFormat, "weight_map: tensor '{}' is there twice", tensor);
    }
    if (map.empty()) fail(ErrorCode::kFormat, "weight_map is empty");
    return map;
  });
}

// Takes from each shard what the map does not place in another one.
void open_shards(CheckpointContents& contents, const fs::path& folder, const WeightMap& map) {
  std::map<std::string, std::int64_t> shards;  // by name, with the number of their tensors
  for (const auto& [tensor, shard] : map) ++shards[shard];
  for (const auto& [shard, n_tensors] : shards) {
    const fs::path path = folder / shard;
    if (!is_there(path)) {
      fail(ErrorCode::kNotFound, "'{}' is missing; {} places {} tensors there", path.string(), kIndex, n_tensors);
    }
    open_shard(contents, path, [&map, &here = shard](const TensorEntry& entry) {
      const auto it = map.find(entry.name);
      return it == map.end() || it->second == here;
    });
  }
}

CheckpointContents describe(const fs::path& path, const fs::path& folder) {
  CheckpointContents contents;
  contents.kind = Kind::kHuggingFace;
  contents.path = path;
  contents.config = read_json(folder / kConfig);
  if (!contents.config.is_object()) fail(ErrorCode::kFormat, "'{}': not a JSON object", (folder / kConfig).string());
  return contents;
}

std::unique_ptr<CheckpointReader> make_logical_reader(CheckpointContents contents) {
  with_context("'" + contents.path.string() + "'", [&] { join_quantized(contents); });
  return make_reader(std::move(contents));
}

std::unique_ptr<CheckpointReader> open_single(CheckpointContents contents, const fs::path& file) {
  open_shard(contents, file, [](const TensorEntry&) { return true; });
  return make_logical_reader(std::move(contents));
}

std::unique_ptr<CheckpointReader> open_all(CheckpointContents contents, const fs::path& folder, const WeightMap& map) {
  open_shards(contents, folder, map);
  std::unordered_set<std::string_view> found;
  for (const TensorEntry& entry : contents.tensors) found.insert(entry.name);
  for (const auto& [tensor, shard] : map) {
    if (found.contains(tensor)) continue;
    fail(ErrorCode::kFormat, "'{}' lacks tensor '{}', which {} places there", (folder / shard).string(), tensor,
         kIndex);
  }
  return make_logical_reader(std::move(contents));
}

}  // namespace

std::unique_ptr<CheckpointReader> open(const fs::path& folder) {
  if (!is_there(folder / kConfig)) {
    refuse_gguf_folder(folder);
    fail(ErrorCode::kNotFound, "'{}' has no {}: not a Hugging Face model folder", folder.string(), kConfig);
  }
  CheckpointContents contents = describe(folder, folder);
  if (is_there(folder / kSingle) || !is_there(folder / kIndex)) {
    return open_single(std::move(contents), single_file(folder));
  }
  return open_all(std::move(contents), folder, read_weight_map(folder / kIndex));
}

std::unique_ptr<CheckpointReader> open_file(const fs::path& file) {
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  if (!is_there(folder / kConfig)) return nullptr;
  CheckpointContents contents = describe(file, folder);
  if (is_there(folder / kIndex)) {
    const WeightMap map = read_weight_map(folder / kIndex);
    const std::string name = file.filename().string();
    const bool is_shard = std::ranges::any_of(map, [&](const auto& item) { return item.second == name; });
    if (is_shard) return open_all(std::move(contents), folder, map);
  }
  return open_single(std::move(contents), file);
}

}  // namespace nibble::container::hf
