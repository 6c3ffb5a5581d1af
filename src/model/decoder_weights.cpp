#include "model/decoder_weights.h"

#include <utility>

#include "base/format.h"

namespace nibble::model {

namespace {

std::string gguf_name(Role role, int layer, bool bias) {
  const std::string prefix = layer < 0 ? "" : format_text("blk.{}.", layer);
  return format_text("{}{}.{}", prefix, role_name(role), bias ? "bias" : "weight");
}

class SlotList {
 public:
  SlotList(ModelSpec& spec, bool from_gguf) : spec_(spec), from_gguf_(from_gguf) {}

  void set_layer(int layer) {
    layer_ = layer;
    prefix_ = format_text("model.layers.{}.", layer);
  }

  WeightSlot& add(Role role, std::string_view hf_stem, Shape shape) {
    return push(role, prefix_ + std::string(hf_stem) + ".weight", shape, false);
  }

  // A linear and, when the architecture may have one, its bias.
  void add_linear(Role role, std::string_view hf_stem, Shape shape, bool bias, int rope_heads = 0) {
    add(role, hf_stem, shape).gguf_rope_heads = rope_heads;
    if (!bias && !from_gguf_) return;
    WeightSlot& slot = push(role, prefix_ + std::string(hf_stem) + ".bias", Shape{shape.rows()}, true);
    slot.gguf_rope_heads = rope_heads;
    slot.optional = from_gguf_;
  }

  WeightSlot& push(Role role, std::string hf_name, Shape shape, bool bias) {
    WeightSlot slot;
    slot.role = role;
    slot.bias = bias;
    slot.layer = layer_;
    slot.hf_name = std::move(hf_name);
    slot.gguf_name = gguf_name(role, layer_, bias);
    slot.shape = shape;
    return spec_.weights.emplace_back(std::move(slot));
  }

  void leave_blocks() {
    layer_ = -1;
    prefix_.clear();
  }

 private:
  ModelSpec& spec_;
  bool from_gguf_;
  int layer_ = -1;
  std::string prefix_;
};

void add_block(SlotList& list, const ModelSpec& spec, int layer, const GgufDialect& dialect) {
  const BlockSpec& block = spec.blocks[static_cast<std::size_t>(layer)];
  const std::int64_t q_rows = std::int64_t{block.n_heads} * block.head_dim;
  const std::int64_t kv_rows = std::int64_t{block.n_kv_heads} * block.head_dim;
  const int q_heads = dialect.interleaved_rope ? block.n_heads : 0;
  const int k_heads = dialect.interleaved_rope ? block.n_kv_heads : 0;
  list.set_layer(layer);
  list.add(Role::kAttnNorm, "input_layernorm", {spec.hidden});
  list.add_linear(Role::kAttnQ, "self_attn.q_proj", {q_rows, spec.hidden}, block.qkv_bias, q_heads);
  list.add_linear(Role::kAttnK, "self_attn.k_proj", {kv_rows, spec.hidden}, block.qkv_bias, k_heads);
  list.add_linear(Role::kAttnV, "self_attn.v_proj", {kv_rows, spec.hidden}, block.qkv_bias);
  if (block.qk_norm) {
    list.add(Role::kAttnQNorm, "self_attn.q_norm", {block.head_dim});
    list.add(Role::kAttnKNorm, "self_attn.k_norm", {block.head_dim});
  }
  list.add_linear(Role::kAttnOutput, "self_attn.o_proj", {spec.hidden, q_rows}, block.output_bias);
  list.add(Role::kFfnNorm, "post_attention_layernorm", {spec.hidden});
  list.add_linear(Role::kFfnGate, "mlp.gate_proj", {block.ffn, spec.hidden}, block.ffn_bias);
  list.add_linear(Role::kFfnUp, "mlp.up_proj", {block.ffn, spec.hidden}, block.ffn_bias);
  list.add_linear(Role::kFfnDown, "mlp.down_proj", {spec.hidden, block.ffn}, block.ffn_bias);
}

}  // namespace

void add_decoder_weights(ModelSpec& spec, const GgufDialect& dialect, bool from_gguf) {
  spec.weights.clear();
  SlotList list(spec, from_gguf);
  list.push(Role::kTokenEmbedding, "model.embed_tokens.weight", {spec.vocab, spec.hidden}, false);
  for (int layer = 0; layer < spec.n_layers(); ++layer) add_block(list, spec, layer, dialect);
  list.leave_blocks();
  list.push(Role::kOutputNorm, "model.norm.weight", {spec.hidden}, false);
  if (!spec.tied) list.push(Role::kOutput, "lm_head.weight", {spec.vocab, spec.hidden}, false).optional = from_gguf;
  const bool factors = spec.rope.scaling == RopeScaling::kLlama3 || !spec.rope.factors.empty();
  if (factors || from_gguf) {
    list.push(Role::kRopeFactors, "", {spec.rope.dims / 2}, false).optional = from_gguf;
  }
}

}  // namespace nibble::model
