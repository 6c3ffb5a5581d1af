// The arithmetic of the memory planner: bytes of weights, keys and values, activations and optimizer states.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/kv_cache.h"
#include "model/model_spec.h"

namespace nibble::pipeline {

enum class Goal : std::uint8_t { kRun, kFinetune, kInt8 };

struct KnownModel {
  const model::ModelSpec* spec = nullptr;
  double parameters = 0;
  bool assumed = false;  // only the number of parameters is known; `spec` is dense_shape() of it
};

// One way to hold a model, and the memory it takes. Bytes.
struct MemoryRow {
  std::string format;  // "q4_k_m", "nf4 + LoRA"
  std::string note;
  bool stock = false;          // a recipe of the GGUF files, or 16 and 32 bits
  double bits_per_weight = 0;  // of the weights as held, all tensors counted
  double weights = 0;
  double kv_cache = 0;
  double activations = 0;
  double training = 0;  // gradients, optimizer states, adapters
  double total() const { return weights + kv_cache + activations + training; }
};

struct Workload {
  std::int64_t context = 0;  // tokens of each sequence
  std::int64_t batch = 1;    // sequences
  model::KvType kv = model::KvType::kF16;
};

// The rows of a goal, from most to least memory.
std::vector<MemoryRow> memory_rows(const KnownModel& model, Goal goal, const Workload& workload);

// Bytes of keys and values that one more token takes.
double kv_bytes_per_token(const model::ModelSpec& spec, model::KvType type);
// Temporary buffers of one forward step over min(tokens, 512) tokens in f32: residual stream, norms, q, k, v, attention
// output, the three of the feed-forward part, attention scores of one head per thread are not counted; and logits of
// one row.
double run_activation_bytes(const model::ModelSpec& spec, std::int64_t tokens);
// Activations kept for the backward pass in 16 bit, with checkpoints at every block: 2 s b h per block, and one block
// in full, s b h (34 + 5 a s / h) bytes (Korthikanti et al. 2022, "Reducing activation recomputation", section 4.1);
// and logits in f32.
double train_activation_bytes(const model::ModelSpec& spec, std::int64_t tokens, std::int64_t batch);
// Weights of LoRA adapters of a rank on every linear of the blocks (q, k, v, output, gate, up, down).
double lora_parameters(const model::ModelSpec& spec, int rank);

}  // namespace nibble::pipeline
