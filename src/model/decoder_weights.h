// The weights of a decoder as tensors of both dialects: from the options of its blocks and a table of names.
#pragma once

#include <span>
#include <string_view>

#include "model/model_spec.h"

namespace nibble::model {

// What a weight of a role is called, without ".weight": in Hugging Face's files after the prefix of its block, and in
// GGUF where that is not role_name(). An empty name: as usual.
struct RoleNames {
  Role role;
  std::string_view hf;
  std::string_view gguf = {};
  bool bare = false;  // Hugging Face's name has no ".weight" behind it, and "_bias" for ".bias"
};

// How gate and up of experts share a tensor where they have one name: one below the other, or row by row in turns.
enum class GateUp : std::uint8_t { kHalves, kTurns };

// How an architecture's files differ from Llama's.
struct Dialect {
  std::string_view hf_blocks = "model.layers.";  // before the number of a block
  std::span<const RoleNames> names = {};
  RowOrder::Kind hf_rope = RowOrder::Kind::kCanonical;    // of q and k
  RowOrder::Kind gguf_rope = RowOrder::Kind::kCanonical;  // likewise
  RowOrder::Kind hf_qkv = RowOrder::Kind::kCanonical;     // of a fused q, k and v
  bool hf_transposed = false;                             // linears of the blocks lie (in, out)
  bool hf_experts_transposed = false;                     // each expert's matrices of a plain stack do
  GateUp hf_gate_up = GateUp::kHalves;
  bool gguf_norm_plus_one = false;      // norms hold 1 + weight
  bool gguf_qk_norm_by_tensor = false;  // norms of queries and keys: only the file's tensors tell whether there are any
};

// Fills spec.weights from the rest of the spec. `from_gguf` marks as optional what only the file's tensors tell: head,
// biases, rope factors.
void add_decoder_weights(ModelSpec& spec, const Dialect& dialect, bool from_gguf);

}  // namespace nibble::model
