#include "container/gguf/reader.h"

#include <bit>
#include <string>
#include <unordered_set>

#include "base/checked.h"
#include "container/gguf/byte_reader.h"
#include "container/gguf/types.h"
#include "container/mapped_checkpoint.h"

namespace nibble::container::gguf {

static_assert(std::endian::native == std::endian::little);

namespace {

template <typename T>
MetaValue read_scalar(ByteReader& in) {
  if constexpr (std::same_as<T, std::string>) {
    return std::string(in.read_string());
  } else if constexpr (std::same_as<T, bool>) {
    return in.read<std::uint8_t>() != 0;
  } else {
    return in.read<T>();
  }
}

template <typename T>
MetaArray read_array(ByteReader& in, std::uint64_t count) {
  constexpr std::uint64_t kMinBytes = std::same_as<T, std::string> ? sizeof(std::uint64_t) : sizeof(T);
  if (count > in.remaining() / kMinBytes) {
    fail(ErrorCode::kFormat, "at offset {}: an array of {} elements does not fit in the {} bytes left", in.offset(),
         count, in.remaining());
  }
  std::vector<T> items;
  if constexpr (std::same_as<T, std::string>) {
    items.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) items.emplace_back(in.read_string());
  } else if constexpr (std::same_as<T, bool>) {
    items.reserve(count);
    for (const std::byte byte : in.take(count)) items.push_back(byte != std::byte{0});
  } else {
    const auto bytes = in.take(count * sizeof(T));
    items.resize(count);
    if (count > 0) std::memcpy(items.data(), bytes.data(), bytes.size());
  }
  return {std::move(items)};
}

struct ValueReader {
  MetaValue (*scalar)(ByteReader&);
  MetaArray (*array)(ByteReader&, std::uint64_t count);
};

template <typename T>
constexpr ValueReader value_reader() {
  return {read_scalar<T>, read_array<T>};
}

// By GGUF value type; arrays themselves have no entry.
constexpr ValueReader kValueReaders[] = {
    value_reader<std::uint8_t>(), value_reader<std::int8_t>(),   value_reader<std::uint16_t>(),
    value_reader<std::int16_t>(), value_reader<std::uint32_t>(), value_reader<std::int32_t>(),
    value_reader<float>(),        value_reader<bool>(),          value_reader<std::string>(),
    {nullptr, nullptr},           value_reader<std::uint64_t>(), value_reader<std::int64_t>(),
    value_reader<double>(),
};

MetaValue read_value(ByteReader& in) {
  const auto type = in.read<std::uint32_t>();
  const bool is_array = type == kArrayType;
  const auto item_type = is_array ? in.read<std::uint32_t>() : type;
  if (is_array && item_type == kArrayType) {
    fail(ErrorCode::kUnsupported, "at offset {}: arrays of arrays are not supported", in.offset() - 4);
  }
  if (item_type >= std::size(kValueReaders)) {
    fail(ErrorCode::kFormat, "at offset {}: unknown value type {}", in.offset() - 4, item_type);
  }
  const ValueReader& reader = kValueReaders[item_type];
  if (!is_array) return reader.scalar(in);
  const auto count = in.read<std::uint64_t>();
  return reader.array(in, count);
}

Metadata read_metadata(ByteReader& in, std::uint64_t n_entries) {
  Metadata metadata;
  std::unordered_set<std::string_view> seen;
  for (std::uint64_t i = 0; i < n_entries; ++i) {
    const std::uint64_t start = in.offset();
    const std::string_view key =
        with_context(format_text("metadata entry {} of {}", i, n_entries), [&] { return in.read_string(); });
    if (key.empty()) fail(ErrorCode::kFormat, "metadata entry {} at offset {}: empty key", i, start);
    if (!seen.insert(key).second) {
      fail(ErrorCode::kFormat, "metadata key '{}' at offset {} is there for the second time", key, start);
    }
    metadata.append(std::string(key),
                    with_context(format_text("metadata key '{}'", key), [&] { return read_value(in); }));
  }
  return metadata;
}

std::uint32_t read_alignment(const Metadata& metadata) {
  const MetaValue* value = metadata.find(kAlignmentKey);
  if (value == nullptr) return kDefaultAlignment;
  const auto* alignment = std::get_if<std::uint32_t>(value);
  if (alignment == nullptr) fail(ErrorCode::kFormat, "metadata key '{}': not a u32", kAlignmentKey);
  if (!std::has_single_bit(*alignment)) fail(ErrorCode::kFormat, "an alignment of {} is no power of two", *alignment);
  return *alignment;
}

// Reads one entry of the tensor index; view.parts[0] and `offset` are set by place_tensors(). Gives the offset in the
// data section.
std::uint64_t read_tensor(ByteReader& in, TensorEntry& entry) {
  const std::uint64_t start = in.offset();
  entry.name = in.read_string();
  if (entry.name.size() > kMaxNameBytes) {
    fail(ErrorCode::kFormat, "name of {} bytes at offset {}; at most {} are allowed", entry.name.size(), start,
         kMaxNameBytes);
  }
  return with_context(format_text("tensor '{}' (index entry at offset {})", entry.name, start), [&] {
    const auto n_dims = in.read<std::uint32_t>();
    if (n_dims > kMaxDims) fail(ErrorCode::kFormat, "{} dimensions; at most {} are allowed", n_dims, kMaxDims);
    std::array<std::int64_t, kMaxDims> dims{};
    for (std::uint32_t i = 0; i < n_dims; ++i)
      dims[n_dims - 1 - i] = checked_cast<std::int64_t>(in.read<std::uint64_t>());
    entry.view.shape = Shape(std::span(dims).first(n_dims));
    const auto type = in.read<std::uint32_t>();
    entry.view.encoding = &encoding_of(type);
    if (entry.view.cols() % entry.view.encoding->block_elements != 0) {
      fail(ErrorCode::kFormat, "rows of {} elements are no multiple of the {} of {}", entry.view.cols(),
           entry.view.encoding->block_elements, entry.view.encoding->name);
    }
    return in.read<std::uint64_t>();
  });
}

// Checks that the tensors follow each other without gaps and lie in the file, and points the views at their bytes.
void place_tensors(Index& index, std::span<const std::uint64_t> offsets, std::span<const std::byte> bytes) {
  std::uint64_t expected = 0;
  for (std::size_t i = 0; i < index.tensors.size(); ++i) {
    TensorEntry& entry = index.tensors[i];
    with_context("tensor '" + entry.name + "'", [&] {
      if (offsets[i] != expected) {
        fail(ErrorCode::kFormat, "data at offset {} of the data section; the tensors before it end at {}", offsets[i],
             expected);
      }
      const std::uint64_t n_bytes = encoding::tensor_bytes(*entry.view.encoding, entry.view.shape);
      entry.offset = checked_add(index.data_offset, expected);
      const std::uint64_t end = checked_add(entry.offset, n_bytes);
      if (end > bytes.size()) {
        fail(ErrorCode::kFormat,
             "its {} bytes at offset {} go beyond the end of the file at {}: the file is incomplete", n_bytes,
             entry.offset, bytes.size());
      }
      entry.view = make_view(*entry.view.encoding, entry.view.shape, bytes.subspan(entry.offset, n_bytes));
      expected = checked_align(checked_add(expected, n_bytes), std::uint64_t{index.alignment});
    });
  }
}

std::uint64_t read_count(ByteReader& in, std::string_view what) {
  const auto count = in.read<std::uint64_t>();
  if (count > in.remaining()) {
    fail(ErrorCode::kFormat, "at offset {}: a count of {} {} in a file of {} more bytes", in.offset() - 8, count, what,
         in.remaining());
  }
  return count;
}

std::uint32_t read_version(ByteReader& in) {
  const auto version = in.read<std::uint32_t>();
  if (version != 0 && (version & 0xFFFFu) == 0) {
    fail(ErrorCode::kUnsupported, "a big-endian GGUF file; only little-endian ones are supported");
  }
  if (version == 1) fail(ErrorCode::kUnsupported, "GGUF version 1 is not supported: convert the model anew");
  if (version != 2 && version != 3)
    fail(ErrorCode::kUnsupported, "GGUF version {} is unknown; versions 2 and 3 are supported", version);
  return version;
}

}  // namespace

Index parse(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  const auto magic = in.take(kMagic.size());
  if (std::memcmp(magic.data(), kMagic.data(), kMagic.size()) != 0) fail(ErrorCode::kFormat, "not a GGUF file");
  Index index;
  index.version = read_version(in);
  const std::uint64_t n_tensors = read_count(in, "tensors");
  const std::uint64_t n_entries = read_count(in, "metadata entries");
  index.metadata = read_metadata(in, n_entries);
  index.alignment = read_alignment(index.metadata);
  std::vector<std::uint64_t> offsets;
  for (std::uint64_t i = 0; i < n_tensors; ++i) {
    with_context(format_text("tensor {} of {}", i, n_tensors), [&] {
      TensorEntry entry;
      offsets.push_back(read_tensor(in, entry));
      index.tensors.push_back(std::move(entry));
    });
  }
  index.data_offset = checked_align(in.offset(), std::uint64_t{index.alignment});
  place_tensors(index, offsets, bytes);
  return index;
}

namespace {

// "<stem>-00001-of-00003.gguf" -> the name of shard `number` (from 1) of `count`.
std::filesystem::path shard_path(const std::filesystem::path& first, std::int64_t number, std::int64_t count) {
  const std::string suffix = format_text("-{:05}-of-{:05}.gguf", 1, count);
  const std::string name = first.filename().string();
  if (!name.ends_with(suffix)) {
    fail(ErrorCode::kFormat, "the first of {} shards must be called '<name>{}' for the others to be found", count,
         suffix);
  }
  return first.parent_path() /
         (name.substr(0, name.size() - suffix.size()) + format_text("-{:05}-of-{:05}.gguf", number, count));
}

Index parse_file(const MappedFile& file) {
  return with_context("'" + file.path().string() + "'", [&] { return parse(file.bytes()); });
}

void append_shard(CheckpointContents& contents, std::int64_t number, std::int64_t count) {
  const auto path = shard_path(contents.path, number + 1, count);
  const auto file = MappedFile::open(path);
  Index index = parse_file(*file);
  with_context("'" + path.string() + "'", [&] {
    if (index.metadata.get_int(kSplitNo) != number || index.metadata.get_int(kSplitCount) != count) {
      fail(ErrorCode::kFormat, "calls itself shard {} of {}; by its name it is {} of {}",
           index.metadata.get_int(kSplitNo) + 1, index.metadata.get_int(kSplitCount), number + 1, count);
    }
  });
  contents.files.push_back(file);
  append_tensors(contents.tensors, std::move(index.tensors), static_cast<int>(number));
}

void append_other_shards(CheckpointContents& contents) {
  constexpr std::int64_t kMaxShards = 99999;  // five digits in the name
  const std::int64_t count = contents.metadata.get_int(kSplitCount, 1);
  const std::int64_t number = contents.metadata.get_int(kSplitNo, 0);
  if (count < 0 || count > kMaxShards) fail(ErrorCode::kFormat, "{} = {} is out of range", kSplitCount, count);
  if (number != 0) {
    fail(ErrorCode::kInvalidArgument, "this is shard {} of {}: open the first one, '...-{:05}-of-{:05}.gguf'",
         number + 1, count, 1, count);
  }
  if (count <= 1) return;
  for (std::int64_t i = 1; i < count; ++i) append_shard(contents, i, count);
  const std::int64_t total = contents.metadata.get_int(kSplitTensors);
  if (total != static_cast<std::int64_t>(contents.tensors.size())) {
    fail(ErrorCode::kFormat, "{} = {}, but the {} shards hold {} tensors", kSplitTensors, total, count,
         contents.tensors.size());
  }
}

}  // namespace

std::unique_ptr<CheckpointReader> open(const std::filesystem::path& path) {
  CheckpointContents contents;
  contents.kind = Kind::kGguf;
  contents.path = path;
  contents.files.push_back(MappedFile::open(path));
  Index index = parse_file(*contents.files.front());
  contents.metadata = std::move(index.metadata);
  append_tensors(contents.tensors, std::move(index.tensors), 0);
  with_context("'" + path.string() + "'", [&] { append_other_shards(contents); });
  return make_reader(std::move(contents));
}

}  // namespace nibble::container::gguf
