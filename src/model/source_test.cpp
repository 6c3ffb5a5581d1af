#include "model/source.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "tensor/half.h"
#include "testing/program.h"

namespace nibble::model {
namespace {

const std::filesystem::path kBundled = std::filesystem::path(NIBBLE_SOURCE_DIR) / "models/books-7m";

TEST(Source, OpensTheBundledFolder) {
  const auto source = ModelSource::open(kBundled);
  const ModelSpec& spec = source->spec();
  EXPECT_EQ(spec.arch, "llama");
  EXPECT_EQ(spec.name, "books-7m");
  EXPECT_EQ(spec.n_layers(), 8);
  EXPECT_EQ(spec.hidden, 256);
  EXPECT_EQ(spec.vocab, 4096);
  EXPECT_EQ(spec.context, 256);
  EXPECT_TRUE(spec.tied);
  EXPECT_EQ(spec.blocks[3].n_heads, 4);
  EXPECT_EQ(spec.blocks[3].n_kv_heads, 2);
  EXPECT_EQ(spec.blocks[3].head_dim, 64);
  EXPECT_EQ(spec.blocks[3].ffn, 768);
  EXPECT_EQ(spec.rope.dims, 64);
  EXPECT_EQ(spec.weights.size(), 2u + 8 * 9);
  const std::uint64_t per_layer = 256 * 256 * 2 + 128 * 256 * 2 + 3 * 768 * 256 + 2 * 256;
  EXPECT_EQ(spec.parameters(), 4096u * 256 + 256 + 8 * per_layer);
  EXPECT_EQ(source->vocabulary().tokens.size(), 4096u);
}

TEST(Source, ReadsRows) {
  const auto source = ModelSource::open(kBundled);
  const TensorView& view = source->weight(0).entry->view;
  std::vector<float> rows(2 * 256);
  source->read_rows(0, 7, 9, rows.data());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, view.data().data() + (7 * 256 + i) * 2, 2);
    EXPECT_EQ(rows[i], bf16_to_f32(bits));
  }
}

TEST(Source, AWeightFileIsTakenWithTheConfigurationBesideIt) {
  const auto source = ModelSource::open(kBundled / "model.safetensors");
  EXPECT_EQ(source->spec().name, "books-7m");
  EXPECT_EQ(source->spec().weights.size(), 2u + 8 * 9);
  EXPECT_EQ(source->vocabulary().tokens.size(), 4096u);
  EXPECT_EQ(source->reader().path(), kBundled / "model.safetensors");
}

TEST(Source, AWeightFileAloneIsNoModel) {
  const testing::TemporaryFolder folder;
  std::filesystem::copy_file(kBundled / "model.safetensors", folder / "model.safetensors");
  const auto refusal = [&](auto body) -> std::string {
    try {
      body();
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  const std::string alone = refusal([&] { ModelSource::open(folder / "model.safetensors"); });
  EXPECT_NE(alone.find(folder / "model.safetensors"), std::string::npos) << alone;
  EXPECT_NE(alone.find("no config.json beside it"), std::string::npos) << alone;
  std::filesystem::copy_file(kBundled / "config.json", folder / "config.json");
  const auto source = ModelSource::open(folder / "model.safetensors");
  const std::string mute = refusal([&] { source->vocabulary(); });
  EXPECT_NE(mute.find("tokenizer"), std::string::npos) << mute;
}

TEST(Source, SaysWhatIsMissing) {
  try {
    ModelSource::open("/nonexistent/model");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("/nonexistent/model"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace nibble::model
