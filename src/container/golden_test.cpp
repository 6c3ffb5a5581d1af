// Files made by the public `gguf` and `safetensors` packages (dev/golden/container.py): read, and written again byte
// for byte.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "container/test_files.h"
#include "encoding/encoding.h"

namespace nibble::container {
namespace {

struct Wanted {
  const char* name;
  const char* encoding;
  Shape shape;
};

const Wanted kGgufTensors[] = {
    {"plain.f32", "f32", {2, 3}},
    {"plain.f16", "f16", {5}},
    {"plain.bf16", "bf16", {3, 1, 2}},
    {"plain.f64", "f64", {2}},
    {"plain.i8", "i8", {7}},
    {"plain.i16", "i16", {3}},
    {"plain.i32", "i32", {2, 2}},
    {"plain.i64", "i64", {1}},
    {"block.q4_0", "q4_0", {3, 64}},
    {"block.q8_0", "q8_0", {2, 2, 32}},
    {"block.q4_k", "q4_k", {2, 256}},
    {"block.q6_k", "q6_k", {1, 512}},
    {"block.iq4_xs", "iq4_xs", {1, 256}},
};

// Name and encoding are the same word; the seed of the pattern is the place in the list, the file's order another.
const Wanted kSafetensorsTensors[] = {
    {"f64", "f64", {2}},         {"i64", "i64", {1, 2}},      {"f32", "f32", {2, 3}}, {"i32", "i32", {3}},
    {"f16", "f16", {5}},         {"bf16", "bf16", {2, 2}},    {"i16", "i16", {3}},    {"f8_e4m3", "f8_e4m3", {7}},
    {"f8_e5m2", "f8_e5m2", {3}}, {"f8_e8m0", "f8_e8m0", {3}}, {"i8", "i8", {5}},      {"u8", "u8", {2, 2}},
    {"bool", "bool", {4}},       {"u16", "u16", {3}},         {"u32", "u32", {3}},    {"u64", "u64", {1}},
    {"empty", "f32", {0, 4}},    {"scalar", "f32", {}},
};

std::vector<PlannedTensor> plan_of(const CheckpointReader& reader) {
  std::vector<PlannedTensor> plan;
  for (const TensorEntry& entry : reader.tensors()) plan.push_back({entry.name, entry.view.encoding, entry.view.shape});
  return plan;
}

// In two pieces each, last tensor first: the order must not matter.
void write_all(CheckpointWriter& writer, const CheckpointReader& reader) {
  for (std::size_t i = reader.tensors().size(); i-- > 0;) {
    const auto bytes = reader.tensors()[i].view.data();
    const std::size_t half = bytes.size() / 2;
    writer.write(i, half, bytes.subspan(half));
    writer.write(i, 0, bytes.first(half));
  }
  writer.commit();
}

template <typename T>
T scalar(const Metadata& m, std::string_view key) {
  return std::get<T>(*m.find(key));
}

template <typename T>
std::vector<T> array(const Metadata& m, std::string_view key) {
  return std::get<std::vector<T>>(std::get<MetaArray>(*m.find(key)).items);
}

template <typename T>
using Limits = std::numeric_limits<T>;

TEST(Golden, GgufMetadataOfEveryType) {
  const auto reader = open(golden("golden.gguf"));
  EXPECT_EQ(reader->kind(), Kind::kGguf);
  const Metadata& m = reader->metadata();
  EXPECT_EQ(m.get_string("general.architecture"), "golden");
  EXPECT_EQ(m.entries().size(), 26u);
  EXPECT_EQ(scalar<std::uint8_t>(m, "scalar.u8"), 200);
  EXPECT_EQ(scalar<std::int8_t>(m, "scalar.i8"), -100);
  EXPECT_EQ(scalar<std::uint16_t>(m, "scalar.u16"), 60000);
  EXPECT_EQ(scalar<std::int16_t>(m, "scalar.i16"), -30000);
  EXPECT_EQ(scalar<std::uint32_t>(m, "scalar.u32"), 4000000000u);
  EXPECT_EQ(scalar<std::int32_t>(m, "scalar.i32"), -2000000000);
  EXPECT_EQ(scalar<float>(m, "scalar.f32"), 1.5f);
  EXPECT_EQ(scalar<bool>(m, "scalar.bool"), true);
  EXPECT_EQ(scalar<std::string>(m, "scalar.string"), "na\xC3\xAFve \xE2\x96\x81 text");
  EXPECT_EQ(scalar<std::uint64_t>(m, "scalar.u64"), (std::uint64_t{1} << 63) + 5);
  EXPECT_EQ(scalar<std::int64_t>(m, "scalar.i64"), -(std::int64_t{1} << 62));
  EXPECT_EQ(scalar<double>(m, "scalar.f64"), 0.1);
  using testing::ElementsAre;
  EXPECT_THAT(array<std::uint8_t>(m, "array.u8"), ElementsAre(1, 2, 255));
  EXPECT_THAT(array<std::int8_t>(m, "array.i8"), ElementsAre(-128, 127));
  EXPECT_THAT(array<std::uint16_t>(m, "array.u16"), ElementsAre(0, 65535));
  EXPECT_THAT(array<std::int16_t>(m, "array.i16"), ElementsAre(-32768, 32767));
  EXPECT_THAT(array<std::uint32_t>(m, "array.u32"), ElementsAre(0u, Limits<std::uint32_t>::max()));
  EXPECT_THAT(array<std::int32_t>(m, "array.i32"),
              ElementsAre(Limits<std::int32_t>::min(), Limits<std::int32_t>::max()));
  EXPECT_THAT(array<float>(m, "array.f32"), ElementsAre(0.5f, -2.25f, 3.0f));
  EXPECT_THAT(array<bool>(m, "array.bool"), ElementsAre(true, false, true));
  EXPECT_THAT(array<std::string>(m, "array.string"), ElementsAre("", "a b", "\xC3\xA9"));
  EXPECT_THAT(array<std::uint64_t>(m, "array.u64"), ElementsAre(0u, Limits<std::uint64_t>::max()));
  EXPECT_THAT(array<std::int64_t>(m, "array.i64"),
              ElementsAre(Limits<std::int64_t>::min(), Limits<std::int64_t>::max()));
  EXPECT_THAT(array<double>(m, "array.f64"), ElementsAre(1e300, -0.0));
}

TEST(Golden, GgufTensors) {
  const auto reader = open(golden("golden.gguf"));
  ASSERT_EQ(reader->tensors().size(), std::size(kGgufTensors));
  for (std::size_t i = 0; i < std::size(kGgufTensors); ++i) {
    const TensorEntry& entry = reader->tensors()[i];
    EXPECT_EQ(entry.name, kGgufTensors[i].name);
    EXPECT_EQ(entry.view.encoding, encoding::find(kGgufTensors[i].encoding)) << entry.name;
    EXPECT_EQ(entry.view.shape, kGgufTensors[i].shape) << entry.name;
    EXPECT_EQ(entry.offset % 64, 0u) << entry.name;
    EXPECT_EQ(bytes_of(entry.view), pattern(entry.view.n_bytes(), i)) << entry.name;
    EXPECT_EQ(reader->find(entry.name), &entry);
  }
  EXPECT_EQ(reader->find("plain"), nullptr);
  EXPECT_THAT(error_of([&] { reader->at("plain"); }), testing::HasSubstr("golden.gguf' has no tensor 'plain'"));
  EXPECT_EQ(reader->file_bytes(), std::filesystem::file_size(golden("golden.gguf")));
}

TEST(Golden, GgufWrittenAgainIsTheSameFile) {
  const TempFolder folder;
  const auto reader = open(golden("golden.gguf"));
  const auto writer = create_gguf(folder / "again.gguf", reader->metadata(), plan_of(*reader));
  EXPECT_EQ(writer->file_bytes(), reader->file_bytes());
  EXPECT_FALSE(std::filesystem::exists(folder / "again.gguf"));
  write_all(*writer, *reader);
  EXPECT_EQ(read_file(folder / "again.gguf"), read_file(golden("golden.gguf")));
}

TEST(Golden, SplitGgufIsOneCheckpoint) {
  const auto reader = open(golden("golden_split-00001-of-00003.gguf"));
  EXPECT_EQ(reader->files().size(), 3u);
  EXPECT_EQ(reader->metadata().get_int("golden.block_count"), 3);
  EXPECT_EQ(reader->metadata().get_int("split.count"), 3);
  ASSERT_EQ(reader->tensors().size(), 5u);
  for (int i = 0; i < 5; ++i) {
    const TensorEntry& entry = reader->at("t" + std::to_string(i));
    EXPECT_EQ(entry.shard, i / 2);
    ASSERT_EQ(entry.view.shape, Shape({3 + i}));
    float first = 0;
    std::memcpy(&first, entry.view.data().data(), sizeof(first));
    EXPECT_EQ(first, 10.0f * static_cast<float>(i));
  }
  // Written as one file it is no longer split.
  const TempFolder folder;
  write_all(*create_gguf(folder / "one.gguf", reader->metadata(), plan_of(*reader)), *reader);
  const auto one = open(folder / "one.gguf");
  EXPECT_EQ(one->tensors().size(), 5u);
  EXPECT_FALSE(one->metadata().contains("split.count"));
}

TEST(Golden, SplitGgufWithAShardMissingOrWrong) {
  const TempFolder folder;
  const auto name = [](int i) { return "golden_split-0000" + std::to_string(i) + "-of-00003.gguf"; };
  const auto put = [&](int from, int to) { folder.write(name(to), read_file(golden(name(from)))); };
  const auto error = [&](int i) { return error_of([&] { open(folder / name(i)); }); };
  put(1, 1);
  put(2, 2);
  EXPECT_THAT(error(1), testing::HasSubstr("golden_split-00003-of-00003.gguf"));
  put(2, 3);
  EXPECT_THAT(error(1), testing::HasSubstr("calls itself shard 2 of 3"));
  EXPECT_THAT(error(2), testing::HasSubstr("open the first one"));
  folder.write("model.gguf", read_file(golden(name(1))));
  EXPECT_THAT(error_of([&] { open(folder / "model.gguf"); }), testing::HasSubstr("-00001-of-00003.gguf"));
}

TEST(Golden, SafetensorsOfEveryDtype) {
  const auto reader = open(golden("golden.safetensors"));
  EXPECT_EQ(reader->kind(), Kind::kSafetensors);
  EXPECT_EQ(reader->metadata().get_string("format"), "pt");
  EXPECT_TRUE(reader->config().is_null());
  ASSERT_EQ(reader->tensors().size(), std::size(kSafetensorsTensors));
  for (std::size_t i = 0; i < std::size(kSafetensorsTensors); ++i) {
    const Wanted& wanted = kSafetensorsTensors[i];
    const TensorEntry& entry = reader->at(wanted.name);
    EXPECT_EQ(entry.view.encoding, encoding::find(wanted.encoding)) << wanted.name;
    EXPECT_EQ(entry.view.shape, wanted.shape) << wanted.name;
    std::string bytes = pattern(entry.view.n_bytes(), i);
    if (entry.name == "bool") {
      for (char& c : bytes) c &= 1;
    }
    EXPECT_EQ(bytes_of(entry.view), bytes) << wanted.name;
  }
}

TEST(Golden, SafetensorsWrittenAgainIsTheSameFile) {
  const TempFolder folder;
  const auto reader = open(golden("golden.safetensors"));
  write_all(*create_safetensors(folder / "again.safetensors", reader->metadata(), plan_of(*reader)), *reader);
  EXPECT_EQ(read_file(folder / "again.safetensors"), read_file(golden("golden.safetensors")));
}

}  // namespace
}  // namespace nibble::container
