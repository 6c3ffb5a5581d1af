// Adapters of every architecture: run beside the weights, merged, written and read again; those of PEFT against the
// logits that it computes (testdata/*/lora, dev/golden/lora.py).
#include "model/lora.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/atomic_file.h"
#include "base/error.h"
#include "container/lora/adapter.h"
#include "model/forward_test.h"
#include "testing/golden.h"
#include "testing/logits.h"

namespace nibble::model {
namespace {

using nibble::testing::write_tiny_model;
using Source = std::shared_ptr<const ModelSource>;
namespace fs = std::filesystem;

const fs::path kData = fs::path(NIBBLE_SOURCE_DIR) / "src/model/testdata";

// One flat matrix of logits.
std::vector<float> run(const Source& source, std::span<const LoraAdapter> adapters, MathPath path,
                       std::span<const TokenId> tokens, int n_threads = 2, std::size_t n_prompt = SIZE_MAX) {
  Runtime runtime(n_threads);
  const auto model = Model::load(runtime.context, source, {.path = path, .isa = best_isa(), .adapters = adapters});
  KvCache cache(model->spec(), default_kv_type(model->spec(), path), 1, 128);
  std::vector<float> out;
  const std::size_t prompt = std::min(n_prompt, tokens.size());
  const auto append = [&](std::span<const TokenId> part) {
    for (const std::vector<float>& row : forward_one(runtime, *model, cache, {0, part, 0}))
      out.insert(out.end(), row.begin(), row.end());
  };
  append(tokens.first(prompt));
  for (std::size_t i = prompt; i < tokens.size(); ++i) append(tokens.subspan(i, 1));
  return out;
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  float most = 0;
  double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(a[i] - b[i]));
    squares += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return most / static_cast<float>(std::sqrt(squares / static_cast<double>(b.size())));
}

// One of every weight that takes one, ranks 1 to 5, of all but `without`.
LoraAdapter random_adapter(const ModelSpec& spec, std::uint64_t seed, double scale = 0.5) {
  LoraAdapter adapter;
  adapter.name = "random";
  std::uint64_t at = 0;
  for (const WeightSlot& slot : spec.weights) {
    if (!takes_lora(slot)) continue;
    LoraPair pair = {slot.role, slot.layer, 1 + static_cast<std::int64_t>(adapter.pairs.size() % 5), scale, {}, {}};
    pair.a.resize(static_cast<std::size_t>(pair.rank * slot.shape.cols()));
    pair.b.resize(static_cast<std::size_t>(pair.rank * slot.shape.rows()));
    const double size = 1 / std::sqrt(static_cast<double>(slot.shape.cols()));
    for (auto* half : {&pair.a, &pair.b}) {
      for (float& value : *half) {
        const auto bits = static_cast<double>(random_bits(seed, 3, at++) >> 11U) * 0x1p-53;
        value = static_cast<float>((half == &pair.a ? size : 1.0) * (2 * bits - 1));
      }
    }
    adapter.pairs.push_back(std::move(pair));
  }
  return adapter;
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

class PeftAdapter : public ::testing::TestWithParam<std::string> {};

TEST_P(PeftAdapter, GivesTheLogitsOfPeft) {
  const Source source = ModelSource::open(kData / GetParam());
  const std::vector<LoraAdapter> adapters = {load_lora(kData / GetParam() / "lora", *source)};
  const auto tokens = nibble::testing::GoldenFile(kData / GetParam() / "golden.safetensors").values<TokenId>("tokens");
  const auto expected =
      nibble::testing::GoldenFile(kData / GetParam() / "lora/golden.safetensors").values<float>("logits");
  const std::vector<float> got = run(source, adapters, MathPath::kExact, tokens);
  EXPECT_LE(largest_difference(got, expected), 1e-4f);
  EXPECT_LE(largest_difference(run(source, adapters, MathPath::kExact, tokens, 1, 40), expected), 1e-4f);
  EXPECT_LE(largest_difference(run(source, adapters, MathPath::kFast, tokens), expected), 0.05f);
  EXPECT_GT(largest_difference(run(source, {}, MathPath::kExact, tokens), expected), 0.1f);
  const Source merged = merge_lora(source, adapters);
  EXPECT_LE(largest_difference(run(merged, {}, MathPath::kExact, tokens), expected), 1e-4f);
}

INSTANTIATE_TEST_SUITE_P(Cases, PeftAdapter, ::testing::Values("llama_rope3", "phi3", "gpt2", "gpt_neox"),
                         [](const auto& name) { return name.param; });

// What llama.cpp's converter makes of the same folder: names, and the rows of rotary pairs in GGUF's order.
TEST(Lora, TheGgufFileOfAConverterHoldsTheSamePairs) {
  for (const std::string name : {"llama_rope3", "phi3"}) {
    const Source source = ModelSource::open(kData / name);
    LoraAdapter from_peft = load_lora(kData / name / "lora", *source);
    std::erase_if(from_peft.pairs, [](const LoraPair& pair) { return pair.role == Role::kOutput; });
    const LoraAdapter from_gguf = load_lora(kData / name / "lora/adapter.gguf", *source);
    ASSERT_EQ(from_gguf.pairs.size(), from_peft.pairs.size());
    for (std::size_t i = 0; i < from_gguf.pairs.size(); ++i) {
      const LoraPair &gguf = from_gguf.pairs[i], &peft = from_peft.pairs[i];
      EXPECT_EQ(gguf.role, peft.role);
      EXPECT_EQ(gguf.layer, peft.layer);
      EXPECT_EQ(gguf.rank, peft.rank);
      EXPECT_EQ(gguf.a, peft.a) << role_name(peft.role);
      EXPECT_EQ(gguf.b, peft.b) << role_name(peft.role);
    }
  }
}

class LoraOfArchitecture : public ::testing::TestWithParam<nibble::testing::TinyVariant> {};

TEST_P(LoraOfArchitecture, BesideAndMergedAndThroughFilesItIsTheSameFunction) {
  const nibble::testing::TemporaryFolder folder;
  write_tiny_model(folder.path() / "model", GetParam().config);
  const Source source = ModelSource::open(folder.path() / "model");
  const ModelSpec spec = lora_spec(*source);
  const std::vector<LoraAdapter> adapters = {random_adapter(spec, 1), random_adapter(spec, 2, -0.25)};
  ASSERT_FALSE(adapters[0].pairs.empty());
  const std::vector<TokenId> tokens = random_tokens(1, 40, spec.vocab);
  const std::vector<float> beside = run(source, adapters, MathPath::kExact, tokens);
  EXPECT_GT(largest_difference(run(source, {}, MathPath::kExact, tokens), beside), 0.1f);
  EXPECT_LE(largest_difference(run(merge_lora(source, adapters), {}, MathPath::kExact, tokens), beside), 2e-4f);
  for (const std::string form : {"folder", "file.gguf"}) {
    save_lora(adapters[0], *source, folder.path() / form);
    const LoraAdapter again = load_lora(folder.path() / form, *source);
    ASSERT_EQ(again.pairs.size(), adapters[0].pairs.size());
    EXPECT_LE(largest_difference(run(source, {{again, adapters[1]}}, MathPath::kExact, tokens), beside), 1e-5f) << form;
    for (std::size_t i = 0; i < again.pairs.size(); ++i) {
      EXPECT_EQ(again.pairs[i].role, adapters[0].pairs[i].role);
      EXPECT_EQ(again.pairs[i].a, adapters[0].pairs[i].a);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, LoraOfArchitecture, ::testing::ValuesIn(nibble::testing::tiny_variants()),
                         [](const auto& variant) { return variant.param.name; });

TEST(Lora, TheNumberOfThreadsChangesNothing) {
  const nibble::testing::TemporaryFolder folder;
  write_tiny_model(folder.path(), nibble::testing::tiny_config("llama"));
  const Source source = ModelSource::open(folder.path());
  const std::vector<LoraAdapter> adapters = {random_adapter(source->spec(), 1)};
  const std::vector<TokenId> tokens = random_tokens(1, 90, source->spec().vocab);
  for (const MathPath path : {MathPath::kFast, MathPath::kExact}) {
    EXPECT_EQ(run(source, adapters, path, tokens, 1, 80), run(source, adapters, path, tokens, 3, 80));
  }
}

// A scale of 0 is no adapter, scales multiply, and two halves are a whole.
TEST(Lora, ScalesMultiplyAndAdaptersAdd) {
  const nibble::testing::TemporaryFolder folder;
  write_tiny_model(folder.path(), nibble::testing::tiny_config("qwen2"));
  const Source source = ModelSource::open(folder.path());
  const std::vector<TokenId> tokens = random_tokens(1, 20, source->spec().vocab);
  const LoraAdapter whole = random_adapter(source->spec(), 1, 1);
  LoraAdapter half = whole, none = whole;
  half.scale_by(0.5);
  none.scale_by(0);
  const auto logits = [&](const std::vector<LoraAdapter>& adapters) {
    return run(source, adapters, MathPath::kExact, tokens);
  };
  EXPECT_LE(largest_difference(logits({none}), logits({})), 1e-6f);
  EXPECT_LE(largest_difference(logits({half, half}), logits({whole})), 1e-5f);
  EXPECT_GT(largest_difference(logits({half}), logits({whole})), 0.05f);
}

// Only the weights that a pair names change.
TEST(Lora, MergingLeavesOtherWeightsAlone) {
  const nibble::testing::TemporaryFolder folder;
  write_tiny_model(folder.path(), nibble::testing::tiny_config("llama"));
  const Source source = ModelSource::open(folder.path());
  LoraAdapter adapter = random_adapter(source->spec(), 1);
  std::erase_if(adapter.pairs, [](const LoraPair& pair) { return pair.role != Role::kAttnV || pair.layer != 1; });
  const Source merged = merge_lora(source, {&adapter, 1});
  for (std::size_t i = 0; i < source->spec().weights.size(); ++i) {
    const WeightSlot& slot = source->spec().weights[i];
    EXPECT_EQ(merged->weight(i).made != nullptr, slot.role == Role::kAttnV && slot.layer == 1) << slot.hf_name;
  }
  EXPECT_EQ(merged->spec(), source->spec());
}

TEST(Lora, WhatDoesNotFitTheModelIsRefused) {
  const nibble::testing::TemporaryFolder folder;
  json::Value config = nibble::testing::tiny_config("llama");
  write_tiny_model(folder.path() / "llama", config);
  write_tiny_model(folder.path() / "qwen2", nibble::testing::tiny_config("qwen2"));
  write_tiny_model(folder.path() / "mixtral", nibble::testing::tiny_config("mixtral"));
  config.set("intermediate_size", 64);
  write_tiny_model(folder.path() / "narrow", config);
  const auto open = [&](const char* name) { return ModelSource::open(folder.path() / name); };
  const Source llama = open("llama");
  const LoraAdapter adapter = random_adapter(llama->spec(), 1);
  save_lora(adapter, *llama, folder.path() / "a.gguf");
  save_lora(adapter, *llama, folder.path() / "a");
  EXPECT_NE(error_of([&] {
              load_lora(folder.path() / "a.gguf", *open("qwen2"));
            }).find("a.gguf: an adapter of architecture 'llama', the model is 'qwen2'"),
            std::string::npos);
  const std::string shape = error_of([&] { load_lora(folder.path() / "a", *open("narrow")); });
  EXPECT_NE(shape.find("a: the pair of 'model.layers.0.mlp."), std::string::npos) << shape;
  EXPECT_NE(error_of([&] { load_lora(folder.path() / "a", *open("mixtral")); }).find("is no weight of this model"),
            std::string::npos);

  container::lora::Adapter experts;
  experts.pairs.push_back({"model.layers.0.block_sparse_moe.experts.0.w1.weight", false, 1, 1.0, {1}, {1}});
  experts.target_modules = {"w1"};
  write_peft(experts, folder.path() / "experts");
  EXPECT_NE(error_of([&] { load_lora(folder.path() / "experts", *open("mixtral")); }).find("no adapters of experts"),
            std::string::npos);

  LoraAdapter wrong = adapter;
  wrong.pairs[0].b.pop_back();
  EXPECT_NE(error_of([&] { save_lora(wrong, *llama, folder.path() / "b"); }).find("does not fit its shape"),
            std::string::npos);
  wrong.pairs[0] = {Role::kAttnNorm, 0, 1, 1, {1}, {1}};
  EXPECT_NE(error_of([&] { save_lora(wrong, *llama, folder.path() / "b"); }).find("takes an adapter"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(folder.path() / "b"));
}

}  // namespace
}  // namespace nibble::model
