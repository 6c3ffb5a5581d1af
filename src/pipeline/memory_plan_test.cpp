// The memory planner against numbers that follow from the published configuration of Llama-3.1-8B.
#include "nibble/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/atomic_file.h"
#include "base/error.h"
#include "json/json.h"
#include "model/arch.h"
#include "pipeline/dense_shape.h"
#include "pipeline/memory_estimate.h"
#include "testing/program.h"

namespace nibble::pipeline {
namespace {

constexpr const char* kLlama8b = R"({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
  "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
  "max_position_embeddings": 131072, "rope_theta": 500000.0, "rms_norm_eps": 1e-05, "tie_word_embeddings": false})";
constexpr double kParameters = 8030261248.0;

model::ModelSpec llama_8b() { return model::arch_by_model_type("llama").from_hf(json::parse(kLlama8b)); }

double row_value(const json::Value& plan, std::string_view format, std::string_view key) {
  for (const json::Value& row : plan.at("formats").as_array()) {
    if (row.at("format").as_string() == format) return row.at(key).as_number();
  }
  ADD_FAILURE() << "no row " << format;
  return 0;
}

TEST(MemoryPlan, Llama8bFromItsConfiguration) {
  const testing::TemporaryFolder folder;
  write_file_atomically(folder / "config.json", kLlama8b);
  MemoryPlanRequest request;
  request.model = folder / "config.json";
  request.context = 8192;
  request.memory = {parse_memory("8G"), parse_memory("24G")};
  const json::Value plan = json::parse(plan_memory(request).json);
  EXPECT_EQ(plan.at("parameters").as_number(), kParameters);
  EXPECT_EQ(plan.at("kv_bytes_per_token").as_int(), 131072);  // 2 * 32 layers * 8 heads * 128 * 2 bytes
  EXPECT_EQ(row_value(plan, "f16", "kv_cache_bytes"), 131072.0 * 8192);
  EXPECT_NEAR(row_value(plan, "f16", "bits_per_weight"), 16, 0.01);
  EXPECT_EQ(row_value(plan, "f32", "weight_bytes"), 4 * kParameters);
  EXPECT_NEAR(row_value(plan, "q8_0", "bits_per_weight"), 8.5, 0.01);
  EXPECT_NEAR(row_value(plan, "q4_k_m", "bits_per_weight"), 4.89, 0.02);  // the published sizes of the stock mixes
  EXPECT_NEAR(row_value(plan, "q3_k_m", "bits_per_weight"), 4.00, 0.02);
  EXPECT_NEAR(row_value(plan, "q2_k", "bits_per_weight"), 3.16, 0.02);
  // int4 of the blocks, 16 bits of the embedding and the head
  const double embeddings = 2 * 128256.0 * 4096;
  const double norms = 65 * 4096.0;
  EXPECT_NEAR(row_value(plan, "int4 g128", "weight_bytes"),
              (kParameters - embeddings - norms) * (4 + 20 / 128.0) / 8 + (embeddings + norms) * 2, 1);
  const json::Array& advice = plan.at("memory").as_array();
  ASSERT_EQ(advice.size(), 2u);
  EXPECT_THAT(advice[0].at("advice").as_string(), ::testing::HasSubstr("q4_k_m"));
  EXPECT_THAT(advice[1].at("advice").as_string(), ::testing::HasSubstr("room up to f16"));
}

TEST(MemoryPlan, FineTuning) {
  const model::ModelSpec spec = llama_8b();
  const KnownModel model{&spec, kParameters};
  // Rank 16: per block q and o (4096 + 4096), k and v (4096 + 1024), gate, up and down (4096 + 14336).
  EXPECT_EQ(lora_parameters(spec, 16), 16 * 32 * (2 * 8192 + 2 * 5120 + 3 * 18432.0));
  const std::vector<MemoryRow> rows = memory_rows(model, Goal::kFinetune, {.context = 1024});
  const auto full =
      std::find_if(rows.begin(), rows.end(), [](const MemoryRow& row) { return row.format == "f32 AdamW"; });
  ASSERT_NE(full, rows.end());
  EXPECT_EQ(full->weights + full->training, 16 * kParameters);  // weight, gradient, two moments of 4 bytes each
  EXPECT_EQ(rows.back().format, "nf4 + LoRA");
  EXPECT_LT(rows.back().total(), 12e9);
}

TEST(MemoryPlan, ParametersAlone) {
  MemoryPlanRequest request;
  request.parameters = parse_parameters("671B");
  request.memory = {parse_memory("512GB")};
  const Report report = plan_memory(request);
  const json::Value plan = json::parse(report.json);
  EXPECT_EQ(row_value(plan, "f16", "weight_bytes"), 671e9 * 2);
  EXPECT_NEAR(row_value(plan, "q4_k_m", "weight_bytes"), 671e9 * 4.89 / 8, 1);
  EXPECT_THAT(report.text, ::testing::HasSubstr("671B parameters"));
  EXPECT_THAT(report.text, ::testing::HasSubstr("KV cache about 6"));
  EXPECT_THAT(report.text, ::testing::HasSubstr("are estimates"));
  EXPECT_TRUE(plan.at("estimated").as_bool());
  EXPECT_EQ(plan.at("context").as_int(), 8192);
  EXPECT_GT(row_value(plan, "f16", "kv_cache_bytes"), 1e9);
  EXPECT_GT(row_value(plan, "f16", "activation_bytes"), 1e8);
  request.goal = "int8";
  EXPECT_THAT(plan_memory(request).text, ::testing::HasSubstr("do not fit"));
  request.memory = {parse_memory("8G")};
  request.goal = "run";
  EXPECT_THAT(plan_memory(request).text, ::testing::HasSubstr("nothing fits"));
}

// Layers, width, and bytes of cache per token, of models whose configurations are published; the smallest has heads
// of 64.
TEST(MemoryPlan, TheAssumedShapeIsNearRealModels) {
  struct Known {
    double parameters;
    int layers;
    std::int64_t hidden, kv_bytes;
  };
  for (const Known& known : {Known{1.24e9, 16, 2048, 32768}, Known{8.03e9, 32, 4096, 131072},
                             Known{70.6e9, 80, 8192, 327680}, Known{405e9, 126, 16384, 516096}}) {
    const model::ModelSpec shape = dense_shape(known.parameters);
    EXPECT_NEAR(shape.n_layers(), known.layers, 0.16 * known.layers) << known.parameters;
    EXPECT_NEAR(static_cast<double>(shape.hidden), static_cast<double>(known.hidden), 0.16 * known.hidden);
    const double got = kv_bytes_per_token(shape, model::KvType::kF16);
    EXPECT_NEAR(got, static_cast<double>(known.kv_bytes), (known.parameters > 2e9 ? 0.16 : 1.1) * known.kv_bytes);
  }
  const model::ModelSpec exact = dense_shape(kParameters);
  EXPECT_EQ(exact.n_layers(), 32);
  EXPECT_EQ(exact.hidden, 4096);
  EXPECT_EQ(exact.blocks[0].ffn, 14336);
  EXPECT_EQ(exact.blocks[0].n_kv_heads, 8);
  EXPECT_EQ(run_activation_bytes(exact, 512), run_activation_bytes(llama_8b(), 512));
  for (const double extreme : {1.0, 7e6, 1e18}) {
    MemoryPlanRequest request;
    request.parameters = extreme;
    request.memory = {parse_memory("8G")};
    EXPECT_NO_THROW(plan_memory(request)) << extreme;
  }
}

std::vector<std::string> origins(const MemoryPlanRequest& request) {
  std::vector<std::string> found;
  const json::Value plan = json::parse(plan_memory(request).json);
  for (const json::Value& memory : plan.at("memory").as_array()) found.push_back(memory.at("origin").as_string());
  return found;
}

TEST(MemoryPlan, SizesGivenOverrideSizesDetected) {
  MemoryPlanRequest request;
  request.parameters = 8e9;
  EXPECT_EQ(origins(request).front(), "RAM");
  request.vram = {parse_memory("7G")};
  EXPECT_THAT(origins(request), ::testing::ElementsAre("RAM", "VRAM"));
  EXPECT_THAT(plan_memory(request).text, ::testing::HasSubstr("with 7.00 GB of VRAM: q4_k_m"));
  request.memory = {parse_memory("32G"), parse_memory("64G")};
  EXPECT_THAT(origins(request), ::testing::ElementsAre("given", "given", "VRAM"));
  request.vram.clear();
  EXPECT_THAT(origins(request), ::testing::ElementsAre("given", "given"));
}

TEST(MemoryPlan, SizesAsPeopleWriteThem) {
  EXPECT_EQ(parse_memory("24G"), 24000000000u);
  EXPECT_EQ(parse_memory("16GiB"), 17179869184u);
  EXPECT_EQ(parse_memory("512mb"), 512000000u);
  EXPECT_DOUBLE_EQ(parse_parameters("8.03B"), 8.03e9);
  EXPECT_DOUBLE_EQ(parse_parameters("7000000"), 7e6);
  for (const char* bad : {"", "B", "-3B", "7 B", "7X", "nan", "inf", "1e300B"}) {
    EXPECT_THROW(parse_parameters(bad), Error) << bad;
    EXPECT_THROW(parse_memory(bad), Error) << bad;
  }
}

// Against f16, where a number takes 16 bits: codes and, for each group, the halves of its scale.
TEST(MemoryPlan, TypesOfTheCache) {
  const model::ModelSpec spec = llama_8b();
  const double f16 = kv_bytes_per_token(spec, model::KvType::kF16);
  for (const auto& [type, bits] : {std::pair(model::KvType::kF32, 32.0),
                                   {model::KvType::kQ8_0, 8.5},
                                   {model::KvType::kInt8, 8.25},
                                   {model::KvType::kFp8, 8.125},
                                   {model::KvType::kInt4, 5.0},
                                   {model::KvType::kInt4H, 5.0}}) {
    EXPECT_EQ(kv_bytes_per_token(spec, type), f16 * bits / 16) << model::kv_type_name(type);
  }
}

TEST(MemoryPlan, WrongRequests) {
  MemoryPlanRequest request;
  EXPECT_THROW(plan_memory(request), Error);  // neither
  request.parameters = 7e9;
  request.model = "config.json";
  EXPECT_THROW(plan_memory(request), Error);  // both
  request.model.clear();
  request.goal = "dance";
  EXPECT_THROW(plan_memory(request), Error);
  request.goal = "run";
  request.kv_cache = "q1";
  EXPECT_THROW(plan_memory(request), Error);
  request.kv_cache = "";
  EXPECT_THROW(plan_memory(request), Error);
  request.kv_cache = "f16";
  request.batch = 0;
  EXPECT_THROW(plan_memory(request), Error);
}

}  // namespace
}  // namespace nibble::pipeline
