#include "pipeline/memory_estimate.h"

#include <algorithm>

#include "pipeline/recipe.h"

namespace nibble::pipeline {

namespace {

using model::ModelSpec;
using model::Role;
using model::WeightSlot;

constexpr int kLoraRank = 16;
constexpr std::int64_t kStepTokens = 512;

// How weights are held. A recipe gives exact bytes for a known model; else `bits` are those of an 8B model (recipes
// with their mixed types) or follow from the format: n bits with one 16-bit scale and an n-bit zero per group of 128
// weights are n + (n + 16) / 128; NF4 in blocks of 64 with doubly quantized scales is 4 + 0.127.
struct Format {
  std::string_view name;
  std::string_view recipe;  // empty: `bits` for the linears of the blocks, 16 for everything else
  double bits;
};
constexpr Format kF32{"f32", "f32", 32};
constexpr Format kF16{"f16", "f16", 16};
constexpr Format kInt8{"int8", "", 8};
constexpr Format kInt4{"int4 g128", "", 4 + (4 + 16) / 128.0};
constexpr Format kNf4{"nf4", "", 4 + 0.127};
constexpr Format kRunFormats[] = {
    kF32,
    kF16,
    {"q8_0", "q8_0", 8.5},
    kInt8,
    {"q6_k", "q6_k", 6.56},
    {"q5_k_m", "q5_k_m", 5.70},
    {"q4_k_m", "q4_k_m", 4.89},
    {"q4_0", "q4_0", 4.64},
    kInt4,
    kNf4,
    {"q3_k_m", "q3_k_m", 4.00},
    {"q2_k", "q2_k", 3.16},
};

// How a model is trained: what it is held in, and bytes per trained parameter beyond it.
struct Training {
  std::string_view name;
  Format base;
  bool lora;
  double extra;
  std::string_view note;
};
constexpr Training kTrainings[] = {
    {"f32 AdamW", kF32, false, 4 + 8, "gradient, two moments in f32"},
    {"bf16 AdamW", kF16, false, 2 + 4 + 8, "gradient, f32 master copy, two moments in f32"},
    {"bf16 AdamW 8-bit", kF16, false, 2 + 2, "gradient, two moments in 8 bit"},
    {"f16 + LoRA", kF16, true, 16, "rank 16 on every linear, AdamW in f32"},
    {"int8 + LoRA", kInt8, true, 16, "rank 16 on every linear, AdamW in f32"},
    {"nf4 + LoRA", kNf4, true, 16, "QLoRA: rank 16 on every linear, AdamW in f32"},
};

bool is_block_linear(const WeightSlot& slot) { return slot.layer >= 0 && !slot.bias && model::is_matrix(slot.role); }

double recipe_bytes(const ModelSpec& spec, std::string_view name) {
  std::vector<RecipeTensor> tensors;
  for (const WeightSlot& slot : spec.weights) {
    if (!model::is_rope_factors(slot.role)) tensors.push_back({slot.gguf_name, slot.hf_name, slot.shape});
  }
  ModelFacts facts;
  facts.arch = spec.arch;
  facts.n_layers = spec.n_layers();
  facts.gqa = spec.blocks.front().n_heads / spec.blocks.front().n_kv_heads;
  const std::vector<Choice> choices = choose_types(load_recipe(name), facts, tensors);
  double sum = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& f32 = encoding::get("f32");  // norms and biases stay
    sum += static_cast<double>(
        encoding::tensor_bytes(choices[i].type != nullptr ? *choices[i].type : f32, tensors[i].shape));
  }
  return sum;
}

double weight_bytes(const KnownModel& model, const Format& format) {
  if (model.assumed) return model.parameters * format.bits / 8;
  if (!format.recipe.empty()) return recipe_bytes(*model.spec, format.recipe);
  double sum = 0;
  for (const WeightSlot& slot : model.spec->weights) {
    sum += static_cast<double>(slot.shape.elements()) * (is_block_linear(slot) ? format.bits : 16) / 8;
  }
  return sum;
}

MemoryRow base_row(const KnownModel& model, std::string_view name, const Format& format) {
  MemoryRow row;
  row.format = name;
  row.stock = !format.recipe.empty();
  row.weights = weight_bytes(model, format);
  row.bits_per_weight = row.weights * 8 / model.parameters;
  return row;
}

MemoryRow run_row(const KnownModel& model, std::string_view name, const Format& format, const Workload& workload) {
  MemoryRow row = base_row(model, name, format);
  row.kv_cache = static_cast<double>(model::kv_cache_bytes(*model.spec, workload.kv, workload.context)) *
                 static_cast<double>(workload.batch);
  row.activations = run_activation_bytes(*model.spec, workload.context * workload.batch);
  return row;
}

MemoryRow training_row(const KnownModel& model, const Training& training, const Workload& workload) {
  MemoryRow row = base_row(model, training.name, training.base);
  row.note = training.note;
  row.training = training.extra * (training.lora ? lora_parameters(*model.spec, kLoraRank) : model.parameters);
  row.activations = train_activation_bytes(*model.spec, workload.context, workload.batch);
  return row;
}

}  // namespace

double kv_bytes_per_token(const ModelSpec& spec, model::KvType type) {
  constexpr std::int64_t kTokens = 1024;  // the cache grows in steps
  const std::uint64_t more =
      model::kv_cache_bytes(spec, type, 2 * kTokens) - model::kv_cache_bytes(spec, type, kTokens);
  return static_cast<double>(more) / static_cast<double>(kTokens);
}

double run_activation_bytes(const ModelSpec& spec, std::int64_t tokens) {
  double widest = 0;
  for (const model::BlockSpec& block : spec.blocks) {
    const double attention = static_cast<double>(2 * block.n_heads + 2 * block.n_kv_heads) * block.head_dim;
    widest = std::max(widest, attention + 3.0 * static_cast<double>(block.ffn));
  }
  const auto step = static_cast<double>(std::min(tokens, kStepTokens));
  return 4 * (step * (2.0 * static_cast<double>(spec.hidden) + widest) + static_cast<double>(spec.vocab));
}

double train_activation_bytes(const ModelSpec& spec, std::int64_t tokens, std::int64_t batch) {
  const auto s = static_cast<double>(tokens);
  const auto b = static_cast<double>(batch);
  const auto h = static_cast<double>(spec.hidden);
  double block_full = 0;
  for (const model::BlockSpec& block : spec.blocks)
    block_full = std::max(block_full, s * b * h * (34 + 5.0 * block.n_heads * s / h));
  return 2 * s * b * h * spec.n_layers() + block_full + 4 * s * b * static_cast<double>(spec.vocab);
}

double lora_parameters(const ModelSpec& spec, int rank) {
  double sum = 0;
  for (const model::BlockSpec& block : spec.blocks) {
    const std::int64_t q = std::int64_t{block.n_heads} * block.head_dim;
    const std::int64_t kv = std::int64_t{block.n_kv_heads} * block.head_dim;
    const std::int64_t ends =
        2 * (spec.hidden + q) + 2 * (spec.hidden + kv) + (block.gated ? 3 : 2) * (spec.hidden + block.ffn);
    sum += static_cast<double>(rank) * static_cast<double>(ends);
  }
  return sum;
}

std::vector<MemoryRow> memory_rows(const KnownModel& model, Goal goal, const Workload& workload) {
  std::vector<MemoryRow> rows;
  if (goal == Goal::kFinetune) {
    for (const Training& training : kTrainings) rows.push_back(training_row(model, training, workload));
  } else {
    for (const Format& format : kRunFormats) rows.push_back(run_row(model, format.name, format, workload));
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const MemoryRow& a, const MemoryRow& b) { return a.total() > b.total(); });
  return rows;
}

}  // namespace nibble::pipeline
