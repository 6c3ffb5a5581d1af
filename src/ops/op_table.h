// The decoder's operations beside the linears, in f32, as one table of functions per instruction set. Sums run in
// sixteen fixed lanes whatever the width of the registers; an attention result depends on query, keys and values alone,
// not on the batch.
#pragma once

#include <stdint.h>

namespace nibble::ops {

// How keys and values are kept; kv_layout.h says what each is.
enum class KvType : uint8_t { kF32, kF16, kQ8_0, kInt8, kFp8, kInt4, kInt8H, kFp8H, kInt4H, kInt8Static, kFp8Static };
inline constexpr int kKvTypes = 11;

// silu: x / (1 + exp(-x)); gelu: x * Phi(x), exactly or by its tanh form; relu2: relu(x) squared; clamped swish: with
// y = min(x, 7), y / (1 + exp(-1.702 y)), and as a gate times up + 1, where up is clamped to 7 on both sides.
enum class Activation : uint8_t { kSilu, kGelu, kGeluTanh, kRelu, kRelu2, kClampedSwish };
inline constexpr int kActivations = 6;

// Attention of some consecutive tokens of one sequence over one key/value head. Query rows are (token, head of the
// group).
struct AttentionTask {
  const float* q;  // head h of token t at q + t * q_stride + h * head_dim
  int64_t q_stride;
  float* out;  // likewise
  int64_t out_stride;
  int n_tokens;
  int group;  // query heads that share the key/value head
  int head_dim;
  int64_t first_position;  // of the first token; keys up to each token's own position must be stored
  int64_t window;          // tokens seen, the token itself included; 0: all
  float scale;             // of the scores
  const void* k;           // the head's first block of keys (kv_layout.h), of the sequence's position 0
  int64_t k_stride;        // bytes from one block to the next
  const void* v;           // likewise the values
  int64_t v_stride;
  float* scratch;                 // attention_scratch_floats() of kv_layout.h, 64-byte aligned
  float softcap = 0;              // scores become softcap * tanh(score / softcap); 0: as they are
  const float* slopes = nullptr;  // ALiBi: of each head of the group, times the distance of a key; null: none
  bool chunked = false;          // the window is a fixed stretch: tokens of the multiples of it up to the next are seen
  const float* sinks = nullptr;  // of each head of the group: a score that takes its share without a value; null: none
};

struct KvOps {
  // One head's key or value at place `slot` (position % 64) of its block; x: (head_dim); scale: of a type whose scales
  // are fixed, others do not look at it.
  void (*store_k)(void* block, int64_t slot, const float* x, int head_dim, float scale) noexcept;
  void (*store_v)(void* block, int64_t slot, const float* x, int head_dim, float scale) noexcept;
  void (*attend)(const AttentionTask& task) noexcept;
};

struct OpTable {
  // out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]; out may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out) noexcept;
  // out[i] = (x[i] - mean) / sqrt(variance + eps) * weight[i] + bias[i]; bias may be null, out may be x.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* out) noexcept;
  // Rotates pairs (x[i], x[i + pairs]) by the angles whose cos and sin are given.
  void (*rotate)(float* x, const float* cos, const float* sin, int64_t pairs) noexcept;
  // x += y
  void (*add)(float* x, const float* y, int64_t n) noexcept;
  // x *= factor
  void (*scale)(float* x, float factor, int64_t n) noexcept;
  // out[i] += sum_k factors[k] * b[k * ldb + i] for k < rank, in that order
  void (*add_products)(const float* factors, int64_t rank, const float* b, int64_t ldb, int64_t n, float* out) noexcept;
  // x = cap * tanh(x / cap)
  void (*softcap)(float* x, float cap, int64_t n) noexcept;
  // By Activation. gate = activation(gate) * up (or as said there); x = activation(x)
  void (*gate[kActivations])(float* gate, const float* up, int64_t n) noexcept;
  void (*activate[kActivations])(float* x, int64_t n) noexcept;
  KvOps kv[kKvTypes];  // by KvType
};

const OpTable& scalar_ops() noexcept;
const OpTable& avx2_ops() noexcept;
const OpTable& avx512_ops() noexcept;

}  // namespace nibble::ops
