// Writing: what is refused, what a file looks like before commit(), both kinds from several threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "base/atomic_file.h"
#include "container/test_files.h"
#include "encoding/encoding.h"

namespace nibble::container {
namespace {

using testing::HasSubstr;

using Create = std::unique_ptr<CheckpointWriter> (*)(const std::filesystem::path&, const Metadata&,
                                                     std::vector<PlannedTensor>);

PlannedTensor planned(std::string name, std::string_view encoding, const Shape& shape) {
  return {std::move(name), &encoding::get(encoding), shape};
}

class Writer : public testing::TestWithParam<Create> {
 protected:
  std::string error_for(std::vector<PlannedTensor> plan, const Metadata& metadata = {}) {
    return error_of([&] { GetParam()(folder_ / "out", metadata, std::move(plan)); });
  }
  TempFolder folder_;
};
INSTANTIATE_TEST_SUITE_P(Kinds, Writer, testing::Values(create_gguf, create_safetensors));

TEST_P(Writer, NothingIsThereBeforeCommit) {
  std::vector<std::byte> data(40, std::byte{7});
  {
    const auto writer = GetParam()(folder_ / "out", {}, {planned("a", "f32", {10})});
    EXPECT_EQ(writer->data_bytes(), 40u);
    writer->write(0, 0, data);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
  const auto writer = GetParam()(folder_ / "out", {}, {planned("a", "f32", {10})});
  writer->write(0, 0, std::span(data).first(39));
  EXPECT_THAT(error_of([&] { writer->commit(); }), HasSubstr("39 of 40 data bytes were written"));
  writer->write(0, 39, std::span(data).subspan(39));
  writer->commit();
  EXPECT_EQ(std::filesystem::file_size(folder_ / "out"), writer->file_bytes());
  EXPECT_EQ(open(folder_ / "out")->at("a").view.data()[39], std::byte{7});
}

TEST_P(Writer, WritesOutsideATensorAreRefused) {
  const std::vector<std::byte> data(41);
  const auto writer = GetParam()(folder_ / "out", {}, {planned("a", "f32", {10}), planned("b", "f32", {10})});
  EXPECT_THROW(writer->write(0, 0, data), Error);
  EXPECT_THROW(writer->write(0, 41, {}), Error);
  EXPECT_THROW(writer->write(0, ~std::uint64_t{0}, std::span(data).first(2)), Error);
}

TEST_P(Writer, BadPlansAreRefused) {
  EXPECT_THAT(error_for({planned("a", "f32", {1}), planned("a", "f16", {1})}), HasSubstr("two tensors are called 'a'"));
  EXPECT_THAT(error_for({planned("", "f32", {1})}), HasSubstr("without a name"));
  EXPECT_THAT(error_for({{"a", nullptr, {1}}}), HasSubstr("'a' has no encoding"));
  EXPECT_THAT(error_for({planned("a", "q4_k", {2, 255})}), HasSubstr("tensor 'a' of shape (2, 255) does not fit q4_k"));
  EXPECT_THAT(error_for({planned("a", "int4-g128", {2, 256})}), HasSubstr("for int4-g128"));
}

TEST_P(Writer, ManyThreads) {
  constexpr std::size_t kTensors = 8;
  std::vector<PlannedTensor> plan;
  for (std::size_t i = 0; i < kTensors; ++i)
    plan.push_back(planned("t" + std::to_string(i), i % 2 ? "f16" : "f32", {1000, 3}));
  const auto writer = GetParam()(folder_ / "out", {}, plan);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kTensors; ++i) {
    threads.emplace_back([&, i] {
      const std::string bytes = pattern(encoding::tensor_bytes(*plan[i].encoding, plan[i].shape), i);
      for (std::size_t at = 0; at < bytes.size(); at += 500) writer->write(i, at, as_bytes(bytes).subspan(at, 500));
    });
  }
  for (std::thread& thread : threads) thread.join();
  writer->commit();
  const auto reader = open(folder_ / "out");
  for (std::size_t i = 0; i < kTensors; ++i) {
    const TensorView& view = reader->at("t" + std::to_string(i)).view;
    EXPECT_EQ(bytes_of(view), pattern(view.n_bytes(), i));
  }
}

TEST(GgufWriter, LimitsOfTheFormat) {
  const TempFolder folder;
  const auto error = [&](std::vector<PlannedTensor> plan, const Metadata& metadata = {}) {
    return error_of([&] { create_gguf(folder / "out", metadata, std::move(plan)); });
  };
  EXPECT_THAT(error({planned(std::string(64, 'n'), "f32", {1})}), HasSubstr("longer than the 63 bytes"));
  EXPECT_THAT(error({planned("a", "f32", {1, 1, 1, 1, 1})}), HasSubstr("5 dimensions; GGUF allows 4"));
  EXPECT_THAT(error({planned("a", "f8_e4m3", {1})}), HasSubstr("GGUF has no type for f8_e4m3"));
  Metadata metadata;
  metadata.set("general.alignment", std::uint32_t{24});
  EXPECT_THAT(error({}, metadata), HasSubstr("no power of two"));
  metadata.set("general.alignment", std::uint64_t{64});
  EXPECT_THAT(error({}, metadata), HasSubstr("must be a u32"));
}

TEST(GgufWriter, ScalarsAndEmptyTensors) {
  const TempFolder folder;
  const auto writer =
      create_gguf(folder / "out", {}, {planned("s", "f32", {}), planned("e", "f32", {0, 4}), planned("t", "f32", {2})});
  const std::vector<std::byte> data(8);
  writer->write(0, 0, std::span(data).first(4));
  writer->write(2, 0, data);
  writer->commit();
  const auto reader = open(folder / "out");
  EXPECT_EQ(reader->at("s").view.shape, Shape({1}));
  EXPECT_EQ(reader->at("e").view.shape, Shape({0, 4}));
  EXPECT_EQ(reader->at("e").view.n_bytes(), 0u);
}

TEST(SafetensorsWriter, MetadataMustBeStrings) {
  const TempFolder folder;
  Metadata metadata;
  metadata.set("n", std::uint32_t{1});
  EXPECT_THAT(error_of([&] { create_safetensors(folder / "out", metadata, {}); }),
              HasSubstr("metadata key 'n': not a string"));
}

TEST(SafetensorsWriter, EveryTensorIsAlignedToItsNumbers) {
  const TempFolder folder;
  const auto writer = create_safetensors(folder / "out", {},
                                         {planned("i", "i8", {3}), planned("h", "f16", {1}), planned("f", "f32", {1})});
  const std::vector<std::byte> data(4);
  writer->write(0, 0, std::span(data).first(3));
  writer->write(1, 0, std::span(data).first(2));
  writer->write(2, 0, data);
  writer->commit();
  const auto reader = open(folder / "out");
  EXPECT_EQ(reader->at("f").offset % 8, 0u);
  EXPECT_EQ(reader->at("h").offset % 2, 0u);
}

// Writes tensors of 40, 40, 200, 20 and 40 bytes and gives the names of the files.
std::vector<std::string> write_folder(const TempFolder& folder, std::uint64_t shard_bytes) {
  const std::vector<PlannedTensor> plan = {planned("a", "f32", {10}), planned("b", "f32", {2, 5}),
                                           planned("big", "f32", {50}), planned("h", "f16", {10}),
                                           planned("c", "f32", {10})};
  const auto writer = create_hf_weights(folder.path(), {}, plan, shard_bytes);
  EXPECT_EQ(writer->data_bytes(), 340u);
  for (std::size_t i = 0; i < plan.size(); ++i) {
    writer->write(i, 0, as_bytes(pattern(encoding::tensor_bytes(*plan[i].encoding, plan[i].shape), i)));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  writer->commit();
  std::uint64_t file_bytes = 0;
  std::vector<std::string> names;
  for (const auto& item : std::filesystem::directory_iterator(folder.path())) {
    names.push_back(item.path().filename().string());
    if (names.back().ends_with(".safetensors")) file_bytes += item.file_size();
  }
  EXPECT_EQ(writer->file_bytes(), file_bytes);
  std::ranges::sort(names);
  write_file_atomically(folder / "config.json", "{}");
  const auto reader = open(folder.path());
  EXPECT_EQ(reader->tensors().size(), plan.size());
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const TensorView& view = reader->at(plan[i].name).view;
    EXPECT_EQ(view.shape, plan[i].shape);
    EXPECT_EQ(bytes_of(view), pattern(view.n_bytes(), i)) << plan[i].name;
  }
  return names;
}

TEST(HuggingFaceWriter, OneFileWhereAllFitsOne) {
  for (const std::uint64_t shard_bytes : {std::uint64_t{340}, kShardBytes}) {
    EXPECT_THAT(write_folder(TempFolder(), shard_bytes), testing::ElementsAre("model.safetensors"));
  }
}

TEST(HuggingFaceWriter, ShardsHoldAtMostTheirSizeButForOneLargerTensor) {
  const TempFolder folder;
  EXPECT_THAT(write_folder(folder, 80),
              testing::ElementsAre("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                   "model-00003-of-00003.safetensors", "model.safetensors.index.json"));
  const json::Value index = json::parse_file(folder / "model.safetensors.index.json");
  EXPECT_EQ(index.at("metadata").at("total_size").as_int(), 340);
  std::vector<std::string> shards;
  for (const char* name : {"a", "b", "big", "h", "c"}) shards.push_back(index.at("weight_map").at(name).as_string());
  EXPECT_EQ(index.at("weight_map").as_object().size(), 5u);
  EXPECT_EQ(shards[0], "model-00001-of-00003.safetensors");
  EXPECT_EQ(shards[1], shards[0]);
  EXPECT_EQ(shards[2], "model-00002-of-00003.safetensors");
  EXPECT_EQ(shards[3], "model-00003-of-00003.safetensors");
  EXPECT_EQ(shards[4], shards[3]);
  EXPECT_EQ(write_folder(TempFolder(), 1).size(), 6u);  // each tensor by itself, and the index
}

TEST(HuggingFaceWriter, BadPlansAreRefused) {
  const TempFolder folder;
  EXPECT_THAT(error_of([&] { create_hf_weights(folder.path(), {}, {}, 0); }), HasSubstr("0 bytes"));
  // Twice, though in two shards.
  EXPECT_THAT(error_of([&] {
                create_hf_weights(folder.path(), {}, {planned("a", "f32", {10}), planned("a", "f32", {10})}, 1);
              }),
              HasSubstr("two tensors are called 'a'"));
}

}  // namespace
}  // namespace nibble::container
