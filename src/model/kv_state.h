// Inside of KvCache: where each head's keys and values lie, and buffers that grow to what a forward pass needs and
// stay.
#pragma once

#include <vector>

#include "base/aligned_buffer.h"
#include "model/kv_cache.h"

namespace nibble::model {

// Memory that only grows; what it held is lost when it does.
class WorkBuffer {
 public:
  std::byte* bytes(std::uint64_t n_bytes) {
    if (buffer_.size() < n_bytes) buffer_ = AlignedBuffer(n_bytes);
    return buffer_.data();
  }
  float* floats() { return buffer_.as<float>(); }
  const float* floats() const { return buffer_.as<float>(); }
  float* floats(std::int64_t n) {
    return reinterpret_cast<float*>(bytes(static_cast<std::uint64_t>(n) * sizeof(float)));
  }

 private:
  AlignedBuffer buffer_;
};

struct Workspace {
  static constexpr std::size_t kRounded = 4;  // ways in which linears of one input may ask for it to be rounded

  WorkBuffer residual, normed, q, k, v, attended, projected, attention_out, gate, up, logits, cos, sin, local_cos,
      local_sin, threads, scores, routed, shared, q_latent, head_inputs, head_outputs, low_rank;
  WorkBuffer activations[kRounded];
};

struct KvCache::State {
  // (sequence, block of 64 positions, head): memory is touched as a sequence grows.
  struct Layer {
    AlignedBuffer k, v;
    std::int64_t k_block_bytes = 0;  // of one head
    std::int64_t v_block_bytes = 0;
    std::int64_t n_blocks = 0;  // per sequence
    int n_kv_heads = 0;
    int head_dim = 0;
    float k_scale = 0, v_scale = 0;  // of types whose scales are fixed

    std::int64_t k_stride() const { return n_kv_heads * k_block_bytes; }
    std::int64_t v_stride() const { return n_kv_heads * v_block_bytes; }
    std::byte* keys(int sequence, std::int64_t block, int head) {
      return k.data() + ((sequence * n_blocks + block) * n_kv_heads + head) * k_block_bytes;
    }
    std::byte* values(int sequence, std::int64_t block, int head) {
      return v.data() + ((sequence * n_blocks + block) * n_kv_heads + head) * v_block_bytes;
    }
  };

  KvType type{};
  std::int64_t context = 0;
  std::vector<std::int64_t> lengths;  // per sequence
  std::vector<Layer> layers;
  Workspace work;
};

}  // namespace nibble::model
