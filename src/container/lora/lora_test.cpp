// Adapter files: both forms there and back, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "container/lora/adapter.h"
#include "container/test_files.h"
#include "encoding/encoding.h"

namespace nibble::container::lora {
namespace {

using container::error_of;

Adapter example(Kind dialect) {
  const bool gguf = dialect == Kind::kGguf;
  Adapter adapter;
  adapter.dialect = dialect;
  adapter.name = "example";
  adapter.arch = gguf ? "llama" : "";
  adapter.base = gguf ? "" : "some/base";
  adapter.target_modules = {"q_proj", "down_proj", "embed_tokens"};
  const auto pair = [&](const char* hf, const char* name, bool embedding, std::int64_t rank, double scale,
                        std::int64_t in, std::int64_t out) {
    Pair made = {gguf ? name : hf, embedding, rank, scale, {}, {}};
    for (std::int64_t i = 0; i < rank * in; ++i) made.a.push_back(static_cast<float>(i) * 0.25f - 1);
    for (std::int64_t i = 0; i < rank * out; ++i) made.b.push_back(2 - static_cast<float>(i) * 0.5f);
    adapter.pairs.push_back(std::move(made));
  };
  pair("model.embed_tokens.weight", "token_embd.weight", true, 2, 2, 6, 11);
  pair("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight", false, 3, 2, 5, 6);
  pair("model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight", false, 2, 0.5, 6, 4);
  return adapter;
}

class BothForms : public ::testing::TestWithParam<Kind> {
 protected:
  std::filesystem::path path() const { return folder_ / (GetParam() == Kind::kGguf ? "adapter.gguf" : "adapter"); }
  void write(const Adapter& adapter) const {
    GetParam() == Kind::kGguf ? write_gguf(adapter, path()) : write_peft(adapter, path());
  }
  // The tensors, wherever they lie.
  std::filesystem::path weights() const {
    return GetParam() == Kind::kGguf ? path() : path() / "adapter_model.safetensors";
  }
  TempFolder folder_;
};

TEST_P(BothForms, ComeBackAsTheyWere) {
  const Adapter adapter = example(GetParam());
  write(adapter);
  const Adapter again = read(path());
  EXPECT_EQ(again.dialect, GetParam());
  EXPECT_EQ(again.arch, adapter.arch);
  EXPECT_EQ(again.base, adapter.base);
  ASSERT_EQ(again.pairs.size(), adapter.pairs.size());
  for (const Pair& pair : adapter.pairs) {
    const auto found = std::ranges::find(again.pairs, pair.weight, &Pair::weight);
    ASSERT_NE(found, again.pairs.end()) << pair.weight;
    EXPECT_EQ(found->embedding, pair.embedding);
    EXPECT_EQ(found->rank, pair.rank);
    EXPECT_EQ(found->a, pair.a) << pair.weight;
    ASSERT_EQ(found->b.size(), pair.b.size());
    for (std::size_t i = 0; i < pair.b.size(); ++i)  // a GGUF file has one alpha: another scale is in b
      EXPECT_NEAR(found->scale * static_cast<double>(found->b[i]), pair.scale * static_cast<double>(pair.b[i]), 1e-6);
  }
}

TEST_P(BothForms, EveryTruncationIsRefused) {
  write(example(GetParam()));
  const std::string whole = read_file(weights());
  for (std::size_t size = 0; size < whole.size(); size += 7) {
    write_file_atomically(weights(), std::string_view(whole).substr(0, size));
    EXPECT_THROW(read(path()), Error) << size << " of " << whole.size();
  }
}

TEST_P(BothForms, ChangedBytesOfTheHeaderAreErrorsOrAdapters) {
  write(example(GetParam()));
  const std::string whole = read_file(weights());
  const int refused = count_refused_changes(whole, 200, [&](const std::string& changed) {
    write_file_atomically(weights(), changed);
    read(path());
  });
  EXPECT_GT(refused, 900);
}

TEST_P(BothForms, NotANumberIsRefusedByName) {
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    TempFolder folder;
    Adapter adapter = example(GetParam());
    adapter.pairs[2].a[3] = value;
    const auto path = folder / (GetParam() == Kind::kGguf ? "nan.gguf" : "nan");
    GetParam() == Kind::kGguf ? write_gguf(adapter, path) : write_peft(adapter, path);
    const std::string error = error_of([&] { read(path); });
    EXPECT_NE(error.find(GetParam() == Kind::kGguf ? "tensor 'blk.0.attn_q.weight.lora_a' holds a value that is NaN"
                                                   : "q_proj.lora_A.weight' holds a value that is NaN"),
              std::string::npos)
        << error;
    EXPECT_NE(error.find("nan"), std::string::npos);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, BothForms, ::testing::Values(Kind::kHuggingFace, Kind::kGguf),
                         [](const auto& kind) { return kind.param == Kind::kGguf ? "gguf" : "peft"; });

// Tensors of zeros, as a file may hold them.
using Shapes = std::vector<std::pair<std::string, Shape>>;
template <typename Create>
void write_zeros(const Shapes& shapes, const Create& create) {
  std::vector<PlannedTensor> plan;
  for (const auto& [name, shape] : shapes) plan.push_back({name, &encoding::get("f32"), shape});
  const auto writer = create(plan);
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const std::vector<float> zeros(static_cast<std::size_t>(shapes[i].second.elements()));
    writer->write(i, 0, std::as_bytes(std::span(zeros)));
  }
  writer->commit();
}

std::string error_of_peft(const std::string& config, const Shapes& shapes) {
  TempFolder folder;
  folder.write("adapter_config.json", config);
  write_zeros(shapes,
              [&](const auto& plan) { return create_safetensors(folder / "adapter_model.safetensors", {}, plan); });
  return error_of([&] { read(folder.path()); });
}

std::string error_of_gguf(const std::string& type, const std::string& kind, const Shapes& shapes, bool alora = false) {
  TempFolder folder;
  Metadata metadata;
  metadata.set("general.architecture", std::string("llama"));
  metadata.set("general.type", type);
  metadata.set("adapter.type", kind);
  if (alora) metadata.set("adapter.alora.invocation_tokens", MetaArray{std::vector<std::uint32_t>{1}});
  write_zeros(shapes, [&](const auto& plan) { return create_gguf(folder / "a.gguf", metadata, plan); });
  return error_of([&] { read(folder / "a.gguf"); });
}

const std::string kQ = "base_model.model.model.layers.0.self_attn.q_proj";
const Shapes kGood = {{kQ + ".lora_A.weight", {2, 6}}, {kQ + ".lora_B.weight", {4, 2}}};

TEST(PeftConfig, WhatIsAnotherFunctionIsRefusedByName) {
  const auto expect = [](const std::string& options, const std::string& part) {
    const std::string error = error_of_peft(R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4)" + options + "}", kGood);
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_NE(error.find("adapter_config.json"), std::string::npos) << error;
  };
  expect(R"(, "use_dora": true)", "option 'use_dora' (true) is not read");
  expect(R"(, "modules_to_save": ["lm_head"])", "option 'modules_to_save' ([\"lm_head\"]) is not read");
  expect(R"(, "bias": "lora_only")", "bias 'lora_only': trained biases are not read");
  expect(R"(, "lora_bias": true)", "option 'lora_bias'");
  expect(R"(, "init_lora_weights": "pissa_niter_4")", "init_lora_weights 'pissa_niter_4' changes the weights");
  expect(R"(, "task_type": "SEQ_CLS")", "task_type 'SEQ_CLS'");
  expect(R"(, "layer_replication": [[0, 1]])", "option 'layer_replication'");
  expect(R"(, "something_new": {"a": 1})", "option 'something_new'");
  EXPECT_NE(error_of_peft(R"({"peft_type": "VERA"})", kGood).find("peft_type 'VERA'; only 'LORA' is read"),
            std::string::npos);
  EXPECT_NE(error_of_peft("{", kGood).find("adapter_config.json"), std::string::npos);
}

TEST(PeftConfig, RanksMustBeThoseOfTheTensors) {
  EXPECT_NE(error_of_peft(R"({"peft_type": "LORA", "r": 4, "lora_alpha": 4})", kGood)
                .find("q_proj.lora_A.weight' has rank 2, adapter_config.json says 4"),
            std::string::npos);
  EXPECT_NE(error_of_peft(R"({"peft_type": "LORA", "r": 2, "rank_pattern": {"q_(proj": 2}})", kGood).find("(q_(proj)"),
            std::string::npos);
}

TEST(PeftTensors, AreRefusedByName) {
  const auto expect = [](const Shapes& shapes, const std::string& part) {
    const std::string error = error_of_peft(R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4})", shapes);
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_NE(error.find("adapter_model.safetensors"), std::string::npos) << error;
  };
  expect({kGood[0]}, "q_proj.lora_A.weight' has no B beside it");
  expect({kGood[1]}, "q_proj.lora_B.weight' has no A beside it");
  expect({kGood[0], {kGood[1].first, {4, 3}}}, "their ranks differ");
  expect({kGood[0], {kGood[1].first, {4}}}, "a half of a pair is a matrix");
  expect({kGood[0], {kGood[1].first, {3, 4, 2}}}, "adapters of stacked experts are not read");
  expect({kGood[0], kGood[1], {kQ + ".lora_magnitude_vector", {4}}}, "the magnitudes of DoRA is not read");
  expect({kGood[0], kGood[1], {"base_model.model.lm_head.weight", {4, 6}}}, "is no half of a LoRA pair");
  expect({kGood[0], kGood[1], {"other", {4, 6}}}, "tensor 'other' does not begin with 'base_model.model.'");
  expect({}, "an adapter without tensors");
}

TEST(PeftTensors, APickleIsNotRead) {
  TempFolder folder;
  folder.write("adapter_config.json", R"({"peft_type": "LORA"})");
  folder.write("adapter_model.bin", "PK");
  EXPECT_NE(error_of([&] { read(folder.path()); }).find("adapter_model.bin, a pickle"), std::string::npos);
}

TEST(GgufAdapter, IsRefusedByName) {
  const Shapes good = {{"blk.0.attn_q.weight.lora_a", {2, 6}}, {"blk.0.attn_q.weight.lora_b", {4, 2}}};
  const auto expect = [](const std::string& error, const std::string& part) {
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_NE(error.find("a.gguf"), std::string::npos) << error;
  };
  expect(error_of_gguf("model", "lora", good), "general.type is 'model', not 'adapter'");
  expect(error_of_gguf("adapter", "other", good), "an adapter of type 'other'");
  expect(error_of_gguf("adapter", "lora", good, true), "adapters that some tokens switch on");
  expect(error_of_gguf("adapter", "lora", {good[0]}), "'blk.0.attn_q.weight.lora_a' has no B");
  expect(error_of_gguf("adapter", "lora", {good[0], {good[1].first, {4, 3}}}), "their ranks differ");
  expect(error_of_gguf("adapter", "lora", {good[0], good[1], {"blk.0.attn_norm.weight", {6}}}),
         "'blk.0.attn_norm.weight' is no half");
  expect(error_of_gguf("adapter", "lora", {{good[0].first, {3, 2, 6}}, {good[1].first, {3, 4, 2}}}),
         "adapters of stacked experts");
}

TEST(Peft, AFolderIsNotWrittenOver) {
  TempFolder folder;
  write_peft(example(Kind::kHuggingFace), folder / "a");
  EXPECT_THROW(write_peft(example(Kind::kHuggingFace), folder / "a"), Error);
  EXPECT_NE(error_of([&] { write_peft({}, folder / "b"); }).find("an adapter without pairs"), std::string::npos);
}

}  // namespace
}  // namespace nibble::container::lora
