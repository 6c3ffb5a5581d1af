#include <bit>
#include <string>

#include "base/checked.h"
#include "container/checkpoint.h"
#include "container/file_writer.h"
#include "container/gguf/types.h"

namespace nibble::container {

namespace {

using namespace gguf;

template <typename T>
requires std::is_arithmetic_v<T>
void put(std::string& out, T value) { out.append(reinterpret_cast<const char*>(&value), sizeof(value)); }

void put(std::string& out, bool value) { out += value ? '\1' : '\0'; }

void put(std::string& out, std::string_view text) {
  put(out, std::uint64_t{text.size()});
  out += text;
}

void put(std::string& out, const std::string& text) { put(out, std::string_view(text)); }

void put(std::string& out, const MetaArray& array) {
  put(out, kValueTypes[array.items.index()]);
  put(out, std::uint64_t{array.size()});
  std::visit(
      [&]<typename T>(const std::vector<T>& items) {
        for (const T& item : items) put(out, item);
      },
      array.items);
}

bool belongs_to_split(std::string_view key) { return key == kSplitNo || key == kSplitCount || key == kSplitTensors; }

std::uint32_t alignment_of(const Metadata& metadata) {
  const std::int64_t alignment = metadata.get_int(kAlignmentKey, kDefaultAlignment);
  if (alignment < 1 || alignment > std::int64_t{1} << 31 ||
      !std::has_single_bit(static_cast<std::uint64_t>(alignment))) {
    fail(ErrorCode::kInvalidArgument, "an alignment of {} is no power of two", alignment);
  }
  return static_cast<std::uint32_t>(alignment);
}

void put_metadata(std::string& out, const Metadata& metadata) {
  for (const auto& [key, value] : metadata.entries()) {
    if (key.empty()) fail(ErrorCode::kInvalidArgument, "a metadata entry without a key");
    if (belongs_to_split(key)) continue;
    put(out, key);
    put(out, kValueTypes[value.index()]);
    if (key == kAlignmentKey) {
      if (!std::holds_alternative<std::uint32_t>(value)) fail(ErrorCode::kInvalidArgument, "'{}' must be a u32", key);
    }
    std::visit([&](const auto& item) { put(out, item); }, value);
  }
}

void put_tensor(std::string& out, const PlannedTensor& tensor, std::uint64_t offset) {
  const auto type = type_id(*tensor.encoding);
  if (!type)
    fail(ErrorCode::kInvalidArgument, "tensor '{}': GGUF has no type for {}", tensor.name, tensor.encoding->name);
  if (tensor.name.size() > kMaxNameBytes) {
    fail(ErrorCode::kInvalidArgument, "tensor name '{}' is longer than the {} bytes GGUF allows", tensor.name,
         kMaxNameBytes);
  }
  const int rank = tensor.shape.rank();
  if (rank > static_cast<int>(kMaxDims)) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}' has {} dimensions; GGUF allows {}", tensor.name, rank, kMaxDims);
  }
  put(out, tensor.name);
  if (rank == 0) {  // a scalar: one dimension of one
    put(out, std::uint32_t{1});
    put(out, std::uint64_t{1});
  } else {
    put(out, static_cast<std::uint32_t>(rank));
    for (int i = rank - 1; i >= 0; --i) put(out, static_cast<std::uint64_t>(tensor.shape[i]));
  }
  put(out, *type);
  put(out, offset);
}

struct Layout {
  std::string header;
  std::vector<Extent> extents;
  std::uint64_t file_bytes = 0;
};

Layout lay_out(const Metadata& metadata, const std::vector<PlannedTensor>& tensors) {
  check_plan(tensors);
  const std::uint64_t alignment = alignment_of(metadata);
  std::uint64_t n_entries = 0;
  for (const auto& [key, value] : metadata.entries()) n_entries += belongs_to_split(key) ? 0 : 1;

  Layout layout;
  std::string& header = layout.header;
  header = kMagic;
  put(header, kVersion);
  put(header, std::uint64_t{tensors.size()});
  put(header, n_entries);
  put_metadata(header, metadata);
  std::uint64_t end = 0;  // in the data section
  for (const PlannedTensor& tensor : tensors) {
    const std::uint64_t n_bytes = encoding::tensor_bytes(*tensor.encoding, tensor.shape);
    put_tensor(header, tensor, end);
    layout.extents.push_back({end, n_bytes});
    end = checked_align(checked_add(end, n_bytes), alignment);
  }
  const std::uint64_t data_offset = checked_align(std::uint64_t{header.size()}, alignment);
  for (Extent& extent : layout.extents) extent.offset += data_offset;
  layout.file_bytes = checked_add(data_offset, end);
  return layout;
}

}  // namespace

std::uint64_t gguf_bytes(const Metadata& metadata, const std::vector<PlannedTensor>& tensors) {
  return lay_out(metadata, tensors).file_bytes;
}

std::unique_ptr<CheckpointWriter> create_gguf(const std::filesystem::path& path, const Metadata& metadata,
                                              std::vector<PlannedTensor> tensors) {
  return with_context("'" + path.string() + "'", [&] {
    Layout layout = lay_out(metadata, tensors);
    return make_writer(path, layout.header, std::move(layout.extents), layout.file_bytes);
  });
}

}  // namespace nibble::container
