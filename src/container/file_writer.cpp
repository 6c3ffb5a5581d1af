#include "container/file_writer.h"

#include <atomic>
#include <unordered_set>

#include "base/atomic_file.h"
#include "base/error.h"
#include "encoding/encoding.h"

namespace nibble::container {

namespace {

class FileWriter final : public CheckpointWriter {
 public:
  FileWriter(const std::filesystem::path& path, std::string_view header, std::vector<Extent> extents,
             std::uint64_t file_bytes)
      : file_(path), extents_(std::move(extents)), file_bytes_(file_bytes) {
    for (const Extent& extent : extents_) data_bytes_ += extent.n_bytes;
    file_.reserve(file_bytes_);
    file_.write_at(0, std::as_bytes(std::span(header)));
  }

  std::uint64_t data_bytes() const override { return data_bytes_; }
  std::uint64_t file_bytes() const override { return file_bytes_; }

  void write(std::size_t index, std::uint64_t offset, std::span<const std::byte> bytes) override {
    const Extent& extent = extents_.at(index);
    if (offset > extent.n_bytes || bytes.size() > extent.n_bytes - offset) {
      fail(ErrorCode::kInternal, "'{}': bytes [{}, {}) of tensor {}, which has {}", file_.path().string(), offset,
           offset + bytes.size(), index, extent.n_bytes);
    }
    file_.write_at(extent.offset + offset, bytes);
    // Early write-back keeps commit() short, and a big file from filling the memory with dirty pages.
    if (bytes.size() >= kFlushBytes) file_.flush_range(extent.offset + offset, bytes.size());
    written_.fetch_add(bytes.size(), std::memory_order_relaxed);
  }

  void commit() override {
    if (written_.load() < data_bytes_) {
      fail(ErrorCode::kInternal, "'{}': {} of {} data bytes were written", file_.path().string(), written_.load(),
           data_bytes_);
    }
    file_.commit();
  }

 private:
  static constexpr std::size_t kFlushBytes = std::size_t{1} << 20;

  AtomicFile file_;
  std::vector<Extent> extents_;
  std::uint64_t data_bytes_ = 0;
  std::uint64_t file_bytes_;
  std::atomic<std::uint64_t> written_ = 0;
};

}  // namespace

std::unique_ptr<CheckpointWriter> make_writer(const std::filesystem::path& path, std::string_view header,
                                              std::vector<Extent> extents, std::uint64_t file_bytes) {
  return std::make_unique<FileWriter>(path, header, std::move(extents), file_bytes);
}

void check_plan(std::span<const PlannedTensor> tensors) {
  std::unordered_set<std::string_view> names;
  for (const PlannedTensor& tensor : tensors) {
    if (tensor.name.empty()) fail(ErrorCode::kInvalidArgument, "a tensor without a name");
    if (!names.insert(tensor.name).second)
      fail(ErrorCode::kInvalidArgument, "two tensors are called '{}'", tensor.name);
    if (tensor.encoding == nullptr) fail(ErrorCode::kInvalidArgument, "tensor '{}' has no encoding", tensor.name);
    if (!encoding::fits(*tensor.encoding, tensor.shape)) {
      fail(ErrorCode::kInvalidArgument, "tensor '{}' of shape {} does not fit {}: rows must be multiples of {}",
           tensor.name, tensor.shape.to_string(), tensor.encoding->name, tensor.encoding->block_elements);
    }
  }
}

}  // namespace nibble::container
