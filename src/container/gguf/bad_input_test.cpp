// GGUF files that are cut off or lie: always an Error that says where, never a crash or an allocation beyond the file's
// size.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "container/gguf/reader.h"
#include "container/test_files.h"

namespace nibble::container::gguf {
namespace {

using testing::HasSubstr;

// A GGUF file put together by hand.
struct Bytes {
  std::string text;

  template <typename T>
  requires std::is_arithmetic_v<T> Bytes& put(T value) {
    text.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Bytes& u32(std::uint32_t value) { return put(value); }
  Bytes& u64(std::uint64_t value) { return put(value); }
  Bytes& string(std::string_view value) {
    u64(value.size());
    text += value;
    return *this;
  }
  Bytes& header(std::uint64_t n_tensors, std::uint64_t n_entries, std::uint32_t version = 3) {
    text = "GGUF";
    return u32(version).u64(n_tensors).u64(n_entries);
  }
  Bytes& tensor(std::string_view name, std::vector<std::uint64_t> dims, std::uint32_t type, std::uint64_t offset) {
    string(name).u32(static_cast<std::uint32_t>(dims.size()));
    for (const std::uint64_t dim : dims) u64(dim);
    return u32(type).u64(offset);
  }
  Bytes& data(std::size_t n_bytes, std::size_t alignment = 32) {
    text.resize((text.size() + alignment - 1) / alignment * alignment + n_bytes);
    return *this;
  }
};

constexpr std::uint32_t kF32 = 0;
constexpr std::uint32_t kQ4K = 12;
constexpr std::uint32_t kStringType = 8;
constexpr std::uint32_t kArray = 9;

Index parse_exact(std::string_view text) {
  const std::vector<char> copy(text.begin(),
                               text.end());  // exactly sized, so that a sanitizer sees a step past the end
  Index index = parse(std::as_bytes(std::span(copy)));
  for (TensorEntry& entry : index.tensors) entry.view = {};
  return index;
}

void expect_error(const Bytes& bytes, std::string_view wanted) {
  EXPECT_THAT(error_of([&] { parse_exact(bytes.text); }), HasSubstr(std::string(wanted)));
}

TEST(GgufBadInput, TheSmallestFilesAreGood) {
  EXPECT_EQ(parse_exact(Bytes().header(0, 0).text).tensors.size(), 0u);
  EXPECT_EQ(parse_exact(Bytes().header(0, 0, 2).text).version, 2u);
  const Index index =
      parse_exact(Bytes().header(2, 0).tensor("a", {4, 2}, kF32, 0).tensor("b", {}, kF32, 32).data(36).text);
  ASSERT_EQ(index.tensors.size(), 2u);
  EXPECT_EQ(index.tensors[1].offset, index.data_offset + 32);
}

TEST(GgufBadInput, EveryTruncationIsRefused) {
  const std::string whole = read_file(golden("golden.gguf"));
  const Index index = parse(as_bytes(whole));
  const std::size_t end = index.tensors.back().offset + index.tensors.back().view.n_bytes();
  for (std::size_t n = 0; n < end; ++n) {
    EXPECT_THROW(parse_exact(whole.substr(0, n)), Error) << n;
  }
  for (std::size_t n = end; n <= whole.size(); ++n) EXPECT_NO_THROW(parse_exact(whole.substr(0, n))) << n;
}

// Every byte of the header with every bit flipped and with the extreme values: Error or a sound index, whatever it is.
TEST(GgufBadInput, EveryChangedByteIsSurvived) {
  const std::string whole = read_file(golden("golden.gguf"));
  const std::size_t header = parse(as_bytes(whole)).data_offset;
  EXPECT_GT(count_refused_changes(whole, header, parse_exact), static_cast<int>(header));
}

TEST(GgufBadInput, Versions) {
  expect_error(Bytes().header(0, 0, 1), "GGUF version 1 is not supported");
  expect_error(Bytes().header(0, 0, 4), "GGUF version 4 is unknown");
  expect_error(Bytes().header(0, 0, 0), "GGUF version 0 is unknown");
  expect_error(Bytes().header(0, 0, 0x03000000), "big-endian");
  Bytes wrong = Bytes().header(0, 0);
  wrong.text[0] = 'g';
  expect_error(wrong, "not a GGUF file");
}

TEST(GgufBadInput, LyingCounts) {
  for (const std::uint64_t count :
       {std::uint64_t{1}, std::uint64_t{1} << 40, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    EXPECT_THROW(parse_exact(Bytes().header(count, 0).text), Error);
    EXPECT_THROW(parse_exact(Bytes().header(0, count).text), Error);
  }
  expect_error(Bytes().header(~std::uint64_t{0}, 0), "a count of 18446744073709551615 tensors");
  expect_error(Bytes().header(0, 1).u64(1000), "at offset 32: 1000 bytes are needed, the file ends after 0");
  expect_error(Bytes().header(0, 1).string("k").u32(kStringType).u64(~std::uint64_t{0}),
               "metadata key 'k': at offset 45");
  for (const std::uint32_t type : {0u, 4u, 7u, 8u, 12u}) {
    expect_error(Bytes().header(0, 1).string("k").u32(kArray).u32(type).u64(std::uint64_t{1} << 61),
                 "an array of 2305843009213693952 elements does not fit");
  }
}

TEST(GgufBadInput, Metadata) {
  const auto entry = [](Bytes& bytes, std::string_view key) -> Bytes& { return bytes.string(key).u32(4).u32(7); };
  Bytes twice = Bytes().header(0, 2);
  entry(entry(twice, "k"), "k");
  expect_error(twice, "metadata key 'k' at offset 41 is there for the second time");
  Bytes empty = Bytes().header(0, 1);
  expect_error(entry(empty, ""), "empty key");
  expect_error(Bytes().header(0, 1).string("k").u32(13).u32(0),
               "metadata key 'k': at offset 33: unknown value type 13");
  expect_error(Bytes().header(0, 1).string("k").u32(kArray).u32(99).u64(0), "unknown value type 99");
  expect_error(Bytes().header(0, 1).string("k").u32(kArray).u32(kArray).u64(0), "arrays of arrays");
}

TEST(GgufBadInput, Alignment) {
  const auto aligned = [](std::uint32_t alignment) {
    return Bytes().header(0, 1).string("general.alignment").u32(4).u32(alignment);
  };
  expect_error(aligned(0), "an alignment of 0");
  expect_error(aligned(24), "an alignment of 24");
  expect_error(Bytes().header(0, 1).string("general.alignment").u32(10).u64(32), "not a u32");
  EXPECT_EQ(parse_exact(aligned(1).text).alignment, 1u);
  EXPECT_EQ(parse_exact(aligned(4096).text).alignment, 4096u);
}

TEST(GgufBadInput, TensorEntries) {
  const auto one = [](std::string_view name, std::vector<std::uint64_t> dims, std::uint32_t type,
                      std::uint64_t offset) {
    return Bytes().header(1, 0).tensor(name, std::move(dims), type, offset).data(4096);
  };
  EXPECT_NO_THROW(parse_exact(one(std::string(63, 'n'), {4}, kF32, 0).text));
  expect_error(one(std::string(64, 'n'), {4}, kF32, 0), "name of 64 bytes at offset 24; at most 63");
  expect_error(one("t", {1, 1, 1, 1, 1}, kF32, 0), "5 dimensions; at most 4");
  expect_error(one("t", {std::uint64_t{1} << 63}, kF32, 0), "is out of range");
  expect_error(one("t", {std::uint64_t{1} << 32, std::uint64_t{1} << 32}, kF32, 0), "size overflow");
  expect_error(one("t", {std::uint64_t{1} << 31, std::uint64_t{1} << 31}, kF32, 0), "");
  expect_error(one("t", {4, 1025}, kF32, 0), "tensor 't': its 16400 bytes at offset 96 go beyond the end of the file");
  expect_error(one("t", {255}, kQ4K, 0), "rows of 255 elements are no multiple of the 256 of q4_k");
  expect_error(one("t", {32}, 4, 0), "tensor 't' (index entry at offset 24): ggml type 4 (q4_2) is not supported");
  expect_error(one("t", {32}, 12345, 0), "tensor 't' (index entry at offset 24): unknown ggml type 12345");
}

TEST(GgufBadInput, Offsets) {
  const auto two = [](std::uint64_t first, std::uint64_t second) {
    return Bytes().header(2, 0).tensor("a", {5}, kF32, first).tensor("b", {5}, kF32, second).data(96);
  };
  EXPECT_NO_THROW(parse_exact(two(0, 32).text));
  expect_error(two(0, 64), "tensor 'b': data at offset 64 of the data section; the tensors before it end at 32");
  expect_error(two(0, 0), "tensor 'b'");
  expect_error(two(0, 20), "tensor 'b'");
  expect_error(two(32, 0), "tensor 'a'");
  expect_error(two(0, ~std::uint64_t{31}), "tensor 'b'");
}

TEST(GgufBadInput, DuplicateTensorNames) {
  const TempFolder folder;
  const auto path =
      folder.write("m.gguf", Bytes().header(2, 0).tensor("a", {8}, kF32, 0).tensor("a", {8}, kF32, 32).data(64).text);
  EXPECT_THAT(error_of([&] { container::open(path); }), HasSubstr("tensor 'a' is there twice"));
}

TEST(GgufBadInput, SplitCounts) {
  const TempFolder folder;
  const auto split = [&](std::uint32_t no, std::uint32_t count) {
    return folder.write(
        "m.gguf", Bytes().header(0, 2).string("split.no").u32(4).u32(no).string("split.count").u32(4).u32(count).text);
  };
  EXPECT_NO_THROW(container::open(split(0, 1)));
  EXPECT_THROW(container::open(split(0, ~0u)), Error);
  EXPECT_THROW(container::open(split(7, 3)), Error);
  EXPECT_THROW(container::open(split(0, 3)), Error);
}

}  // namespace
}  // namespace nibble::container::gguf
