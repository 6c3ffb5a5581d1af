#include "nibble/synth.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/atomic_file.h"
#include "base/error.h"
#include "model/source.h"
#include "pipeline/random_weights.h"
#include "testing/program.h"

namespace nibble::pipeline {
namespace {

std::string make(const testing::TemporaryFolder& folder, const std::string& shape, const std::string& name, int threads,
                 std::uint64_t seed = 7) {
  SynthRequest request;
  request.shape = shape;
  request.output = folder / name;
  request.seed = seed;
  RunContext run;
  run.threads = threads;
  synthesize_model(request, run);
  return request.output;
}

TEST(Synth, SameBytesForAnyNumberOfThreads) {
  const testing::TemporaryFolder folder;
  const std::string one = read_file(make(folder, "tiny-llama-untied", "1.gguf", 1));
  EXPECT_EQ(one, read_file(make(folder, "tiny-llama-untied", "3.gguf", 3)));
  EXPECT_NE(one, read_file(make(folder, "tiny-llama-untied", "other.gguf", 1, 8)));
}

TEST(Synth, FolderAndGgufFileHoldTheSameModel) {
  for (const char* shape :
       {"tiny-llama", "tiny-llama-untied", "tiny-mistral", "tiny-qwen2", "tiny-qwen3", "tiny-qwen3-moe"}) {
    const testing::TemporaryFolder folder;
    const auto file = model::ModelSource::open(make(folder, shape, "m.gguf", 2));
    const auto hf = model::ModelSource::open(make(folder, shape, "hf", 2));
    ASSERT_EQ(file->spec().parameters(), hf->spec().parameters()) << shape;
    for (std::size_t i = 0; i < hf->spec().weights.size(); ++i) {
      const model::WeightSlot& slot = hf->spec().weights[i];
      const model::WeightSlot* other = file->spec().find(slot.role, slot.layer, slot.bias);
      ASSERT_NE(other, nullptr) << shape << " " << slot.hf_name;
      const auto n = static_cast<std::size_t>(slot.shape.elements());
      std::vector<float> a(n), b(n);
      hf->read_rows(i, 0, slot.shape.rows(), a.data());
      file->read_rows(static_cast<std::size_t>(other - file->spec().weights.data()), 0, slot.shape.rows(), b.data());
      for (std::size_t k = 0; k < n; ++k) ASSERT_NEAR(a[k], b[k], 1e-3f) << shape << " " << slot.hf_name << " " << k;
    }
    EXPECT_EQ(hf->vocabulary().tokens, file->vocabulary().tokens) << shape;
  }
}

TEST(Synth, MakesAsManyLayersAsAsked) {
  const testing::TemporaryFolder folder;
  SynthRequest request;
  request.shape = "llama-3-8b";
  request.output = folder / "m.gguf";
  request.layers = 1;
  request.dry_run = true;
  const std::uint64_t one = synthesize_model(request).parameters;
  request.layers = 3;
  const std::uint64_t block = 2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 4096 * 14336 + 2 * 4096;
  EXPECT_EQ(synthesize_model(request).parameters, one + 2 * block);
  request.layers = -1;
  EXPECT_THROW(synthesize_model(request), Error);
}

TEST(Synth, AFolderInShardsHoldsTheSameModel) {
  const testing::TemporaryFolder folder;
  SynthRequest request;
  request.shape = "tiny-llama";
  request.output = folder / "shards";
  request.seed = 7;
  request.shard_bytes = 100'000;
  const SynthReport report = synthesize_model(request);
  const auto whole = model::ModelSource::open(make(folder, "tiny-llama", "whole", 1));
  const auto shards = model::ModelSource::open(folder / "shards");
  EXPECT_GT(shards->reader().files().size(), 2u);
  EXPECT_EQ(shards->reader().file_bytes(), report.file_bytes);
  for (const container::TensorEntry& entry : whole->reader().tensors()) {
    EXPECT_TRUE(std::ranges::equal(entry.view.data(), shards->reader().at(entry.name).view.data())) << entry.name;
  }
  request.output = folder / "m.gguf";
  EXPECT_THROW(synthesize_model(request), Error);
}

TEST(RandomWeights, AreNormalAndIndependentOfTheRangeAskedFor) {
  const RandomWeights weights(encoding::get("f32"), 0.5f, 2.0f, 1, 2);
  std::vector<float> all(100000);
  weights.fill(0, static_cast<std::int64_t>(all.size()), reinterpret_cast<std::byte*>(all.data()));
  for (const int begin : {1, 2, 3, 5, 4096}) {
    std::vector<float> part(37);
    weights.fill(begin, 37, reinterpret_cast<std::byte*>(part.data()));
    EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + begin)) << begin;
  }
  double sum = 0, square = 0, fourth = 0;
  for (const float value : all) {
    const double z = (static_cast<double>(value) - 0.5) / 2;
    sum += z;
    square += z * z;
    fourth += z * z * z * z;
  }
  const auto n = static_cast<double>(all.size());
  EXPECT_NEAR(sum / n, 0, 0.02);
  EXPECT_NEAR(square / n, 1, 0.03);
  EXPECT_NEAR(fourth / n, 3, 0.15);
}

TEST(Synth, RefusesWhatItCannotMake) {
  const testing::TemporaryFolder folder;
  EXPECT_THROW(make(folder, "llama-9", "m.gguf", 1), Error);
  SynthRequest request;
  request.shape = "tiny-llama";
  request.output = folder / "m.gguf";
  request.dtype = "q4_0";
  EXPECT_THROW(synthesize_model(request), Error);
  request.dtype = "bf16";
  request.output = folder / "no/such/folder/m.gguf";
  EXPECT_THROW(synthesize_model(request), Error);
}

TEST(Synth, EveryShapeDescribesAModel) {
  for (const std::string& shape : list_shapes()) {
    SynthRequest request;
    request.shape = shape;
    request.output = "m.gguf";
    request.dry_run = true;
    EXPECT_GT(synthesize_model(request).parameters, 100000u) << shape;
  }
}

}  // namespace
}  // namespace nibble::pipeline
