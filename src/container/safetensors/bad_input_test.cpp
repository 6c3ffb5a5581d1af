// safetensors files that are cut off or lie.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "container/safetensors/reader.h"
#include "container/test_files.h"

namespace nibble::container::safetensors {
namespace {

using testing::HasSubstr;

std::string file_of(std::string_view header, std::size_t n_data) {
  const std::uint64_t length = header.size();
  std::string text(reinterpret_cast<const char*>(&length), sizeof(length));
  return text.append(header).append(n_data, '\0');
}

Index parse_exact(std::string_view text) {
  const std::vector<char> copy(text.begin(),
                               text.end());  // exactly sized, so that a sanitizer sees a step past the end
  Index index = parse(std::as_bytes(std::span(copy)));
  for (TensorEntry& entry : index.tensors) entry.view = {};
  return index;
}

void expect_error(std::string_view header, std::size_t n_data, std::string_view wanted) {
  EXPECT_THAT(error_of([&] { parse_exact(file_of(header, n_data)); }), HasSubstr(std::string(wanted))) << header;
}

TEST(SafetensorsBadInput, TheSmallestFilesAreGood) {
  EXPECT_EQ(parse_exact(file_of("{}", 0)).tensors.size(), 0u);
  EXPECT_EQ(parse_exact(file_of("{}      ", 0)).data_offset, 16u);
  EXPECT_EQ(parse_exact(file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8)).tensors.size(), 1u);
  EXPECT_EQ(
      parse_exact(
          file_of(
              R"({"e":{"dtype":"F32","shape":[0],"data_offsets":[4,4]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
              R"("f":{"dtype":"F32","shape":[3,0],"data_offsets":[0,0]}})",
              4))
          .tensors.size(),
      3u);
}

TEST(SafetensorsBadInput, EveryTruncationIsRefused) {
  const std::string whole = read_file(golden("golden.safetensors"));
  for (std::size_t n = 0; n < whole.size(); ++n) EXPECT_THROW(parse_exact(whole.substr(0, n)), Error) << n;
  EXPECT_THROW(parse_exact(whole + '\0'), Error);
}

TEST(SafetensorsBadInput, EveryChangedByteIsSurvived) {
  const std::string whole = read_file(golden("golden.safetensors"));
  const std::size_t header = parse(as_bytes(whole)).data_offset;
  EXPECT_GT(count_refused_changes(whole, header, parse_exact), static_cast<int>(header));
}

TEST(SafetensorsBadInput, HeaderLength) {
  for (const std::uint64_t length :
       {std::uint64_t{3}, std::uint64_t{1} << 32, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    std::string text = file_of("{}", 0);
    std::memcpy(text.data(), &length, sizeof(length));
    EXPECT_THAT(error_of([&] { parse_exact(text); }), HasSubstr("is announced at offset 0"));
  }
  EXPECT_THAT(error_of([&] { parse_exact(file_of("", 0)); }), HasSubstr("does not begin with '{'"));
  EXPECT_THAT(error_of([&] { parse_exact(file_of("[]", 0)); }), HasSubstr("does not begin with '{'"));
  EXPECT_THAT(error_of([&] { parse_exact(file_of("{]", 0)); }), HasSubstr("header: JSON"));
}

TEST(SafetensorsBadInput, Offsets) {
  expect_error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,16]}})", 8,
               "data_offsets [0, 16) do not lie in the 8 bytes of data");
  expect_error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "do not lie in");
  expect_error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}})", 8, "do not lie in");
  expect_error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9223372036854775807]}})", 8, "do not lie in");
  expect_error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}})", 8,
               "expected an integer");
  expect_error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8, "has 1 numbers instead of 2");
  expect_error(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8,
               "shape (3) of F32 needs 12 bytes, data_offsets [0, 8) hold 8");
  expect_error(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[2,10]}})",
      10, "tensor 'b' begins at offset");
  expect_error(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[6,10]}})",
      10, "there is a gap");
  expect_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "there is a gap");
  expect_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8, "4 bytes follow the last tensor");
}

TEST(SafetensorsBadInput, Entries) {
  expect_error(R"({"a":1})", 0, "tensor 'a': JSON");
  expect_error(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4, "no member 'dtype'");
  expect_error(R"({"a":{"dtype":"Q7","shape":[1],"data_offsets":[0,4]}})", 4, "tensor 'a': dtype Q7 is not supported");
  expect_error(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "negative dimension");
  expect_error(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", 4, "size overflow");
  expect_error(R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1],"data_offsets":[0,4]}})", 4, "7 dimensions");
  expect_error(R"({"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", 4, "expected an array");
  expect_error(R"({"__metadata__":{"format":1}})", 0, "__metadata__: format");
  expect_error(R"({"__metadata__":{"a":"1","a":"2"}})", 0, "key 'a' is there twice");
  expect_error(R"({"__metadata__":{},"__metadata__":{}})", 0, "__metadata__ is there twice");
}

TEST(SafetensorsBadInput, DuplicateTensorNames) {
  const TempFolder folder;
  const auto path = folder.write("m.safetensors", file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                                          R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                                                          2));
  EXPECT_THAT(error_of([&] { container::open(path); }), HasSubstr("tensor 'a' is there twice"));
}

}  // namespace
}  // namespace nibble::container::safetensors
