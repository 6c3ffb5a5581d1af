// What container::open() takes, and what it says about everything else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "container/test_files.h"
#include "encoding/encoding.h"

namespace nibble::container {
namespace {

using testing::HasSubstr;

std::string open_error(const std::filesystem::path& path) {
  return error_of([&] { open(path); });
}

std::string safetensors_of(std::string_view name, float value) {
  const std::string header = R"({")" + std::string(name) + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  const std::uint64_t length = header.size();
  std::string text(reinterpret_cast<const char*>(&length), sizeof(length));
  return text.append(header).append(reinterpret_cast<const char*>(&value), sizeof(value));
}

TEST(Open, TellsKindsApartByContent) {
  const TempFolder folder;
  EXPECT_EQ(open(folder.write("a.bin", read_file(golden("golden.gguf"))))->kind(), Kind::kGguf);
  EXPECT_EQ(open(folder.write("b.gguf", read_file(golden("golden.safetensors"))))->kind(), Kind::kSafetensors);
  EXPECT_EQ(kind_name(Kind::kGguf), "GGUF file");
}

TEST(Open, SaysWhatAForeignFileIs) {
  const TempFolder folder;
  EXPECT_THAT(open_error(folder / "absent"), HasSubstr("absent"));
  const std::pair<std::string, std::string> foreign[] = {
      {"", "the file is empty"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "a Git LFS pointer"},
      {std::string("PK\x03\x04\0\0\0\0\0\0", 10), "a PyTorch checkpoint"},
      {"\x80\x02}q.", "a PyTorch checkpoint"},
      {"tjgg\x03....", "before GGUF"},
      {"{\"a\": 1}", "a JSON file"},
      {"<!DOCTYPE html>", "a web page"},
      {"hello", "neither a GGUF nor a safetensors file"},
      {"GGUF", "at offset 4"},
      {std::string("GGUF\0\0\0\3", 8), "big-endian"},
      {std::string("GGUF\1\0\0\0", 8), "version 1"},
  };
  for (const auto& [content, wanted] : foreign) {
    const std::string error = open_error(folder.write("model", content));
    EXPECT_THAT(error, HasSubstr(wanted));
    EXPECT_THAT(error, HasSubstr((folder / "model").string()));
  }
}

TEST(Open, HuggingFaceFolder) {
  const auto reader = open(std::filesystem::path(NIBBLE_SOURCE_DIR) / "models/books-7m");
  EXPECT_EQ(reader->kind(), Kind::kHuggingFace);
  EXPECT_EQ(reader->config().at("hidden_size").as_int(), 256);
  EXPECT_EQ(reader->files().size(), 1u);
  EXPECT_EQ(reader->at("model.embed_tokens.weight").view.shape, Shape({4096, 256}));
  EXPECT_EQ(reader->at("model.layers.7.mlp.down_proj.weight").view.encoding->name, "bf16");
}

TEST(Open, FolderWithoutAModel) {
  const TempFolder folder;
  EXPECT_THAT(open_error(folder.path()), HasSubstr("has no config.json"));
  folder.write("m.gguf", "GGUF");
  EXPECT_THAT(open_error(folder.path()), HasSubstr("open one of them, such as 'm.gguf'"));
  folder.write("config.json", "version https://git-lfs.github.com/spec/v1\n");
  EXPECT_THAT(open_error(folder.path()), HasSubstr("config.json': a Git LFS pointer"));
  folder.write("config.json", "[]");
  EXPECT_THAT(open_error(folder.path()), HasSubstr("not a JSON object"));
  folder.write("config.json", "{}");
  EXPECT_THAT(open_error(folder.path()), HasSubstr("open one of them, such as 'm.gguf'"));
  std::filesystem::remove(folder / "m.gguf");
  EXPECT_THAT(open_error(folder.path()), HasSubstr("holds no weights"));
  folder.write("pytorch_model.bin", "PK");
  EXPECT_THAT(open_error(folder.path()), HasSubstr("only as PyTorch files"));
  folder.write("other.safetensors", safetensors_of("a", 1));
  EXPECT_EQ(open(folder.path())->tensors().size(), 1u);
  folder.write("second.safetensors", safetensors_of("b", 1));
  EXPECT_THAT(open_error(folder.path()), HasSubstr("2 safetensors files and no model.safetensors.index.json"));
  folder.write("model.safetensors", "version https://git-lfs.github.com/spec/v1\n");
  EXPECT_THAT(open_error(folder.path()), HasSubstr("model.safetensors': a Git LFS pointer"));
}

TEST(Open, ShardsWithAnIndex) {
  const TempFolder folder;
  const auto index = [&](std::string_view map) {
    folder.write("model.safetensors.index.json",
                 R"({"metadata":{"total_size":8},"weight_map":)" + std::string(map) + "}");
  };
  folder.write("config.json", "{}");
  index(R"({"a":"model-1.safetensors","b":"model-2.safetensors"})");
  folder.write("model-1.safetensors", safetensors_of("a", 1));
  EXPECT_THAT(open_error(folder.path()),
              HasSubstr("model-2.safetensors' is missing; model.safetensors.index.json places 1 tensors there"));
  folder.write("model-2.safetensors", safetensors_of("c", 2));
  EXPECT_THAT(open_error(folder.path()), HasSubstr("model-2.safetensors' lacks tensor 'b'"));
  folder.write("model-2.safetensors", safetensors_of("b", 2));
  const auto reader = open(folder.path());
  EXPECT_EQ(reader->files().size(), 2u);
  EXPECT_EQ(reader->at("b").shard, 1);
  float value = 0;
  std::memcpy(&value, reader->at("b").view.data().data(), sizeof(value));
  EXPECT_EQ(value, 2.0f);

  folder.write("model-2.safetensors",
               safetensors_of("a", 2));  // the map decides which "a" counts, but then "b" is not there
  EXPECT_THAT(open_error(folder.path()), HasSubstr("lacks tensor 'b'"));
  for (const char* shard : {"../x.safetensors", "/etc/passwd", "", ".."}) {
    index(R"({"a":")" + std::string(shard) + "\"}");
    EXPECT_THAT(open_error(folder.path()), HasSubstr("which is no file name"));
  }
  index(R"({"a":"model-1.safetensors","a":"model-2.safetensors"})");
  EXPECT_THAT(open_error(folder.path()), HasSubstr("tensor 'a' is there twice"));
  index("{}");
  EXPECT_THAT(open_error(folder.path()), HasSubstr("weight_map is empty"));
  folder.write("model.safetensors.index.json", "{}");
  EXPECT_THAT(open_error(folder.path()), HasSubstr("no member 'weight_map'"));
}

TEST(Open, AWeightFileAsAModelTakesTheFilesBesideIt) {
  const TempFolder folder;
  const auto file = folder.write("model-1.safetensors", safetensors_of("a", 1));
  EXPECT_EQ(open_model(file)->kind(), Kind::kSafetensors);
  folder.write("config.json", R"({"model_type":"x"})");
  folder.write("model-2.safetensors", safetensors_of("b", 2));
  EXPECT_EQ(open(file)->kind(), Kind::kSafetensors);
  const auto single = open_model(file);
  EXPECT_EQ(single->kind(), Kind::kHuggingFace);
  EXPECT_EQ(single->config().at("model_type").as_string(), "x");
  EXPECT_EQ(single->path(), file);
  EXPECT_EQ(single->folder(), folder.path());
  EXPECT_EQ(single->tensors().size(), 1u);

  folder.write("model.safetensors.index.json",
               R"({"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}})");
  EXPECT_EQ(open_model(file)->tensors().size(), 2u);
  EXPECT_EQ(open_model(folder.path())->folder(), folder.path());
  EXPECT_EQ(open_model(folder.write("other.safetensors", safetensors_of("c", 1)))->tensors().size(), 1u);
  folder.write("config.json", "[]");
  EXPECT_THAT(error_of([&] { open_model(file); }), HasSubstr("not a JSON object"));
}

}  // namespace
}  // namespace nibble::container
