// A decoder-only transformer as plain data: everything the one decoder, the converters and the planner need to know.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/shape.h"

namespace nibble::model {

// What a weight is for. Names as text: role_name(), the GGUF stem of the role ("attn_q", "ffn_down", "token_embd").
enum class Role : std::uint8_t {
  kTokenEmbedding,
  kOutputNorm,
  kOutput,
  kAttnNorm,
  kAttnQ,
  kAttnK,
  kAttnV,
  kAttnOutput,
  kAttnQNorm,
  kAttnKNorm,
  kFfnNorm,
  kFfnGate,
  kFfnUp,
  kFfnDown,
  kRopeFactors,
};
std::string_view role_name(Role role);

// kNone with `factors` set divides each frequency by its factor: how a GGUF file holds llama3 scaling.
enum class RopeScaling : std::uint8_t { kNone, kLinear, kDynamic, kYarn, kLlama3, kLongRope };

struct RopeSpec {
  double theta = 10000;
  int dims = 0;  // rotated part of a head, from its start; pairs are (i, i + dims/2): Hugging Face's order
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;
  std::int64_t original_context = 0;
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  double attention_factor = 0;                       // yarn, longrope: of cos and sin; 0: from the factor
  double beta_fast = 32, beta_slow = 1;              // yarn
  bool truncate = true;                              // yarn: the ramp's ends are rounded outwards to whole dimensions
  std::vector<float> factors;  // divisors of each frequency, (dims/2); longrope: of sequences up to original_context
  std::vector<float> long_factors;  // longrope: of longer sequences
};

struct BlockSpec {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  std::int64_t ffn = 0;
  std::int64_t window = 0;  // a token sees itself and the window - 1 tokens before it; 0: all
  bool qkv_bias = false;
  bool output_bias = false;  // of the attention's output projection
  bool ffn_bias = false;
  bool qk_norm = false;  // RMSNorm over each head of q and k
};

// One tensor of the model: its canonical (Hugging Face) name, its GGUF name, and what GGUF's dialect of this
// architecture does to it.
struct WeightSlot {
  Role role{};
  bool bias = false;
  int layer = -1;  // -1: not in a block
  std::string hf_name;
  std::string gguf_name;
  Shape shape;              // canonical: (out, in), or (n)
  int gguf_rope_heads = 0;  // > 0: GGUF holds these rows (and bias entries) in interleaved-pair order for that many
                            // heads (formats.md 1.5)
  float gguf_add = 0;       // added to each value in GGUF (gemma's norm + 1)
  bool optional = false;    // may be absent (a tied head, rope factors); never set in the spec of an opened ModelSource
};

struct ModelSpec {
  std::string arch;  // GGUF's name: "llama", "qwen2", "qwen3"
  std::string name;  // general.name or folder name
  std::int64_t hidden = 0;
  std::int64_t vocab = 0;
  std::int64_t context = 0;  // trained context length
  double norm_eps = 1e-5;
  bool tied = false;  // the head is the token embedding
  RopeSpec rope;
  std::vector<BlockSpec> blocks;
  std::vector<WeightSlot> weights;  // every tensor the model needs, block by block in evaluation order

  int n_layers() const { return static_cast<int>(blocks.size()); }
  const WeightSlot* find(Role role, int layer, bool bias = false) const;  // null when absent
  std::uint64_t parameters() const;                                       // elements of all weights, a tied head once
};

// Throws Error{kFormat} when sizes contradict each other or are beyond reason. Every spec made from a file passes
// through it.
void validate(const ModelSpec& spec);

}  // namespace nibble::model
