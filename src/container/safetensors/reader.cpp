#include "container/safetensors/reader.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_set>

#include "base/checked.h"
#include "container/mapped_checkpoint.h"
#include "encoding/encoding.h"

namespace nibble::container::safetensors {

static_assert(std::endian::native == std::endian::little);

namespace {

// The reference implementation's bound; the largest header of a model of 671B parameters has 70 KB.
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr std::string_view kMetadataKey = "__metadata__";

std::string_view read_header(std::span<const std::byte> bytes) {
  std::uint64_t length = 0;
  if (bytes.size() < sizeof(length))
    fail(ErrorCode::kFormat, "{} bytes are too few for a safetensors file", bytes.size());
  std::memcpy(&length, bytes.data(), sizeof(length));
  const std::uint64_t rest = bytes.size() - sizeof(length);
  if (length > kMaxHeaderBytes || length > rest) {
    fail(ErrorCode::kFormat,
         "a header of {} bytes is announced at offset 0; {} bytes follow, and at most {} are allowed", length, rest,
         kMaxHeaderBytes);
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + sizeof(length), length);
  if (!header.starts_with('{')) fail(ErrorCode::kFormat, "the header at offset 8 does not begin with '{{'");
  return header;
}

Metadata read_metadata(const json::Value& value) {
  Metadata metadata;
  std::unordered_set<std::string_view> seen;
  for (const auto& [key, item] : value.as_object()) {
    if (!seen.insert(key).second) fail(ErrorCode::kFormat, "key '{}' is there twice", key);
    metadata.append(key, with_context(key, [&text = item] { return text.as_string(); }));
  }
  return metadata;
}

Shape read_shape(const json::Value& value) {
  std::vector<std::int64_t> dims;
  for (const json::Value& dim : value.as_array()) dims.push_back(dim.as_int());
  return Shape(dims);
}

TensorEntry read_tensor(const std::string& name, const json::Value& value, std::uint64_t data_offset,
                        std::span<const std::byte> bytes) {
  const std::string& dtype_text = value.at("dtype").as_string();
  const auto dtype = parse_dtype(dtype_text);
  if (!dtype) fail(ErrorCode::kUnsupported, "dtype {} is not supported", dtype_text);
  const auto& encoding = encoding::get(dtype_name(*dtype));
  const Shape shape = read_shape(value.at("shape"));
  const json::Array& range = value.at("data_offsets").as_array();
  if (range.size() != 2) fail(ErrorCode::kFormat, "data_offsets has {} numbers instead of 2", range.size());
  const std::int64_t begin = range[0].as_int();
  const std::int64_t end = range[1].as_int();
  const auto data_bytes = static_cast<std::int64_t>(bytes.size() - data_offset);
  if (begin < 0 || end < begin || end > data_bytes) {
    fail(ErrorCode::kFormat,
         "data_offsets [{}, {}) do not lie in the {} bytes of data: the file is damaged or incomplete", begin, end,
         data_bytes);
  }
  const std::uint64_t n_bytes = encoding::tensor_bytes(encoding, shape);
  if (n_bytes != static_cast<std::uint64_t>(end - begin)) {
    fail(ErrorCode::kFormat, "shape {} of {} needs {} bytes, data_offsets [{}, {}) hold {}", shape.to_string(),
         dtype_text, n_bytes, begin, end, end - begin);
  }
  TensorEntry entry;
  entry.name = name;
  entry.offset = data_offset + static_cast<std::uint64_t>(begin);
  entry.view = make_view(encoding, shape, bytes.subspan(entry.offset, n_bytes));
  return entry;
}

void check_contiguous(const Index& index, std::uint64_t file_bytes) {
  std::uint64_t expected = index.data_offset;
  for (const TensorEntry& entry : index.tensors) {
    if (entry.offset != expected) {
      fail(ErrorCode::kFormat, "tensor '{}' begins at offset {}, the one before it ends at {}: {}", entry.name,
           entry.offset, expected, entry.offset < expected ? "they overlap" : "there is a gap");
    }
    expected += entry.view.n_bytes();
  }
  if (expected != file_bytes) {
    fail(ErrorCode::kFormat, "{} bytes follow the last tensor at offset {}", file_bytes - expected, expected);
  }
}

}  // namespace

Index parse(std::span<const std::byte> bytes) {
  const std::string_view header = read_header(bytes);
  const json::Value root = with_context("header", [&] { return json::parse(header); });
  Index index;
  index.data_offset = sizeof(std::uint64_t) + header.size();
  bool has_metadata = false;
  for (const auto& member : root.as_object()) {
    if (member.first == kMetadataKey) {
      if (has_metadata) fail(ErrorCode::kFormat, "{} is there twice", kMetadataKey);
      has_metadata = true;
      index.metadata = with_context(kMetadataKey, [&] { return read_metadata(member.second); });
    } else {
      index.tensors.push_back(with_context("tensor '" + member.first + "'", [&] {
        return read_tensor(member.first, member.second, index.data_offset, bytes);
      }));
    }
  }
  // By data; an empty tensor comes before the one that begins where it lies.
  std::ranges::stable_sort(index.tensors, {},
                           [](const TensorEntry& entry) { return std::pair(entry.offset, entry.view.n_bytes()); });
  check_contiguous(index, bytes.size());
  return index;
}

std::unique_ptr<CheckpointReader> open(const std::filesystem::path& path) {
  CheckpointContents contents;
  contents.kind = Kind::kSafetensors;
  contents.path = path;
  contents.files.push_back(MappedFile::open(path));
  return with_context("'" + path.string() + "'", [&] {
    Index index = parse(contents.files.front()->bytes());
    contents.metadata = std::move(index.metadata);
    append_tensors(contents.tensors, std::move(index.tensors), 0);
    return make_reader(std::move(contents));
  });
}

}  // namespace nibble::container::safetensors
