#include "container/checkpoint.h"

#include <algorithm>

#include "base/error.h"
#include "container/mapped_checkpoint.h"

namespace nibble::container {

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::kHuggingFace:
      return "Hugging Face folder";
    case Kind::kSafetensors:
      return "safetensors file";
    case Kind::kGguf:
      return "GGUF file";
  }
  return "";
}

const TensorEntry* CheckpointReader::find(std::string_view name) const {
  const auto it = std::ranges::lower_bound(index_, name, {}, [](const auto& item) { return item.first; });
  return it != index_.end() && it->first == name ? it->second : nullptr;
}

const TensorEntry& CheckpointReader::at(std::string_view name) const {
  if (const TensorEntry* entry = find(name)) return *entry;
  fail(ErrorCode::kNotFound, "'{}' has no tensor '{}'", path().string(), name);
}

std::filesystem::path CheckpointReader::folder() const {
  std::error_code ignored;
  if (std::filesystem::is_directory(path(), ignored)) return path();
  return path().has_parent_path() ? path().parent_path() : std::filesystem::path(".");
}

std::uint64_t CheckpointReader::file_bytes() const {
  std::uint64_t sum = 0;
  for (const auto& file : files()) {
    std::error_code error;
    sum += std::filesystem::file_size(file, error);
    if (error) fail(ErrorCode::kIo, "'{}': {}", file.string(), error.message());
  }
  return sum;
}

void CheckpointReader::build_index() {
  index_.clear();
  index_.reserve(tensors().size());
  for (const TensorEntry& entry : tensors()) index_.emplace_back(entry.name, &entry);
  std::ranges::sort(index_, {}, [](const auto& item) { return item.first; });
  const auto twice = std::ranges::adjacent_find(index_, {}, [](const auto& item) { return item.first; });
  if (twice == index_.end()) return;
  const TensorEntry& a = *twice->second;
  const TensorEntry& b = *std::next(twice)->second;
  fail(ErrorCode::kFormat, "tensor '{}' is there twice: in '{}' at offset {} and in '{}' at offset {}", a.name,
       files()[static_cast<std::size_t>(a.shard)].string(), a.offset,
       files()[static_cast<std::size_t>(b.shard)].string(), b.offset);
}

void CheckpointWriter::write_tensor(std::size_t index, const TensorView& tensor) {
  if (tensor.n_parts != 1) fail(ErrorCode::kInternal, "tensor {} has {} parts", index, tensor.n_parts);
  write(index, 0, tensor.data());
}

namespace {

class MappedCheckpoint final : public CheckpointReader {
 public:
  explicit MappedCheckpoint(CheckpointContents contents) : contents_(std::move(contents)) {
    for (const auto& file : contents_.files) paths_.push_back(file->path());
    build_index();
  }

  Kind kind() const override { return contents_.kind; }
  const std::filesystem::path& path() const override { return contents_.path; }
  std::span<const std::filesystem::path> files() const override { return paths_; }
  std::span<const TensorEntry> tensors() const override { return contents_.tensors; }
  const Metadata& metadata() const override { return contents_.metadata; }
  const json::Value& config() const override { return contents_.config; }
  void drop(const TensorEntry& entry) const override {
    for_each_part(entry, [](const MappedFile& file, std::span<const std::byte> bytes) { file.drop(bytes); });
  }
  void will_need(const TensorEntry& entry) const override {
    for_each_part(entry, [](const MappedFile& file, std::span<const std::byte> bytes) { file.will_need(bytes); });
  }

 private:
  // The parts of a tensor may lie in several files.
  template <typename Visit>
  void for_each_part(const TensorEntry& entry, Visit visit) const {
    for (const Part& part : std::span(entry.view.parts).first(static_cast<std::size_t>(entry.view.n_parts))) {
      if (const MappedFile* file = file_of(contents_, part.bytes)) visit(*file, part.bytes);
    }
  }

  CheckpointContents contents_;
  std::vector<std::filesystem::path> paths_;
};

}  // namespace

const MappedFile* file_of(const CheckpointContents& contents, std::span<const std::byte> bytes) {
  for (const auto& file : contents.files) {
    const std::byte* begin = file->bytes().data();
    const bool holds = std::less_equal<>()(begin, bytes.data()) && std::less<>()(bytes.data(), begin + file->size());
    if (holds) return file.get();
  }
  return nullptr;
}

std::unique_ptr<CheckpointReader> make_reader(CheckpointContents contents) {
  return std::make_unique<MappedCheckpoint>(std::move(contents));
}

void append_tensors(std::vector<TensorEntry>& all, std::vector<TensorEntry> tensors, int shard) {
  for (TensorEntry& entry : tensors) {
    entry.shard = shard;
    all.push_back(std::move(entry));
  }
}

}  // namespace nibble::container
