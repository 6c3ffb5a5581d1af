#include "model/decoder_weights.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/format.h"

namespace nibble::model {

namespace {

// Llama's names, which most architectures have taken over.
constexpr RoleNames kUsualNames[] = {
    {Role::kTokenEmbedding, "model.embed_tokens"},
    {Role::kOutputNorm, "model.norm"},
    {Role::kOutput, "lm_head"},
    {Role::kAttnNorm, "input_layernorm"},
    {Role::kAttnQ, "self_attn.q_proj"},
    {Role::kAttnK, "self_attn.k_proj"},
    {Role::kAttnV, "self_attn.v_proj"},
    {Role::kAttnQkv, "self_attn.qkv_proj"},
    {Role::kAttnQA, "self_attn.q_a_proj"},
    {Role::kAttnQANorm, "self_attn.q_a_layernorm"},
    {Role::kAttnQB, "self_attn.q_b_proj"},
    {Role::kAttnKvA, "self_attn.kv_a_proj_with_mqa"},
    {Role::kAttnKvANorm, "self_attn.kv_a_layernorm"},
    {Role::kAttnKB, "self_attn.kv_b_proj"},
    {Role::kAttnVB, "self_attn.kv_b_proj"},
    {Role::kAttnOutput, "self_attn.o_proj"},
    {Role::kAttnQNorm, "self_attn.q_norm"},
    {Role::kAttnKNorm, "self_attn.k_norm"},
    {Role::kAttnSinks, "self_attn.sinks", {}, true},
    {Role::kAttnPostNorm, "post_attention_layernorm"},
    {Role::kFfnNorm, "post_attention_layernorm"},
    {Role::kFfnGate, "mlp.gate_proj"},
    {Role::kFfnUp, "mlp.up_proj"},
    {Role::kFfnGateUp, "mlp.gate_up_proj"},
    {Role::kFfnDown, "mlp.down_proj"},
    {Role::kFfnPostNorm, "post_feedforward_layernorm"},
    {Role::kRouter, "mlp.gate"},
    {Role::kRouterBias, "mlp.gate.e_score_correction", {}, true},
    {Role::kExpertGate, "mlp.experts.*.gate_proj"},
    {Role::kExpertUp, "mlp.experts.*.up_proj"},
    {Role::kExpertDown, "mlp.experts.*.down_proj"},
    {Role::kSharedGate, "mlp.shared_expert.gate_proj"},
    {Role::kSharedUp, "mlp.shared_expert.up_proj"},
    {Role::kSharedDown, "mlp.shared_expert.down_proj"},
    {Role::kSharedScale, "mlp.shared_expert_gate"},
};

const RoleNames* find_names(std::span<const RoleNames> names, Role role) {
  const auto found = std::ranges::find(names, role, &RoleNames::role);
  return found == names.end() ? nullptr : &*found;
}

class SlotList {
 public:
  SlotList(ModelSpec& spec, const Dialect& dialect, bool from_gguf)
      : spec_(spec), dialect_(dialect), from_gguf_(from_gguf) {}

  void set_layer(int layer) { layer_ = layer; }  // -1: outside the blocks

  WeightSlot& add(Role role, Shape shape, bool bias = false) {
    WeightSlot slot;
    slot.role = role;
    slot.bias = bias;
    slot.layer = layer_;
    slot.shape = shape;
    const RoleNames* own = find_names(dialect_.names, role);
    const RoleNames* usual = find_names(kUsualNames, role);
    const std::string_view end = bias ? ".bias" : ".weight";
    const bool bare = own != nullptr ? own->bare : usual != nullptr && usual->bare;
    const std::string_view hf_end = !bare ? end : bias ? "_bias" : "";
    const std::string_view hf = own != nullptr && !own->hf.empty() ? own->hf : usual != nullptr ? usual->hf : "";
    const std::string_view gguf = own != nullptr && !own->gguf.empty() ? own->gguf : role_name(role);
    const std::string hf_prefix = layer_ < 0 ? "" : format_text("{}{}.", dialect_.hf_blocks, layer_);
    if (!hf.empty()) slot.hf_name = format_text("{}{}{}", hf_prefix, hf, hf_end);
    slot.gguf_name = format_text("{}{}{}", layer_ < 0 ? "" : format_text("blk.{}.", layer_), gguf, end);
    if (hf.find('*') != hf.npos) slot.hf_parts = static_cast<int>(shape[0]);
    return spec_.weights.emplace_back(std::move(slot));
  }

  // A linear of a block and, when the architecture may have one, its bias.
  void add_linear(Role role, Shape shape, bool bias, const RowOrder& hf_rows = {}, const RowOrder& gguf_rows = {}) {
    WeightSlot& weight = add(role, shape);
    weight.hf_rows = hf_rows;
    weight.gguf_rows = gguf_rows;
    weight.hf_transposed = dialect_.hf_transposed;
    if (!bias && !from_gguf_) return;
    WeightSlot& slot = add(role, Shape{shape.rows()}, true);
    slot.hf_rows = hf_rows;
    slot.gguf_rows = gguf_rows;
    slot.optional = from_gguf_;
  }

  void add_norm(Role role, std::int64_t size) {
    if (spec_.norm_bias) add(role, {size}, true);
    add(role, {size}).gguf_add = dialect_.gguf_norm_plus_one ? 1.0f : 0.0f;
  }

  // Of queries or of keys: `heads` of `head_dim`.
  void add_head_norm(Role role, const BlockSpec& block, int heads) {
    const bool optional = from_gguf_ && dialect_.gguf_qk_norm_by_tensor;
    const bool shared = block.qk_norm == QkNorm::kPerHead;
    const std::int64_t size = shared ? block.head_dim : std::int64_t{heads} * block.head_dim;
    if (block.qk_norm_bias) add(role, {size}, true).optional = optional;
    WeightSlot& slot = add(role, {size});
    slot.gguf_add = dialect_.gguf_norm_plus_one ? 1.0f : 0.0f;
    slot.optional = optional;
    if (shared) return;
    slot.hf_rows = {dialect_.hf_rope, heads, 0};
    slot.gguf_rows = {dialect_.gguf_rope, heads, 0};
    if (block.qk_norm != QkNorm::kPerHeadOwn) return;
    slot.file_shape = {heads, block.head_dim};
    if (slot.hf_parts > 0) slot.hf_parts = heads;
  }

 private:
  ModelSpec& spec_;
  const Dialect& dialect_;
  bool from_gguf_;
  int layer_ = -1;
};

// Hugging Face's files hold the keys and values of a head one below the other, GGUF the keys transposed.
void add_latent_attention(SlotList& list, const ModelSpec& spec, const BlockSpec& block, const Dialect& dialect) {
  const LatentSpec& latent = block.latent;
  const int rotated = spec.rope.dims;
  const std::int64_t heads = block.n_heads, q_rows = heads * (latent.plain + rotated), rank = latent.kv_rank;
  const RowOrder q_hf = {dialect.hf_rope, block.n_heads, 0, rotated};
  const RowOrder q_gguf = {dialect.gguf_rope, block.n_heads, 0, rotated};
  const RowOrder k_hf = {dialect.hf_rope, 1, 0, rotated}, k_gguf = {dialect.gguf_rope, 1, 0, rotated};
  if (latent.q_rank > 0) {
    list.add_linear(Role::kAttnQA, {latent.q_rank, spec.hidden}, block.qkv_bias);
    list.add_norm(Role::kAttnQANorm, latent.q_rank);
    list.add_linear(Role::kAttnQB, {q_rows, latent.q_rank}, false, q_hf, q_gguf);
  } else {
    list.add_linear(Role::kAttnQ, {q_rows, spec.hidden}, false, q_hf, q_gguf);
  }
  list.add_linear(Role::kAttnKvA, {rank + rotated, spec.hidden}, block.qkv_bias, k_hf, k_gguf);
  list.add_norm(Role::kAttnKvANorm, rank);
  const std::int64_t both = latent.plain + latent.value;
  const Strides strides = {.shape = {heads * both, rank}, .matrix = both * rank};
  WeightSlot& k = list.add(Role::kAttnKB, {heads, rank, latent.plain});
  k.hf_strides = strides;
  k.hf_strides.row = 1;
  k.hf_strides.col = rank;
  WeightSlot& v = list.add(Role::kAttnVB, {heads, latent.value, rank});
  v.hf_strides = strides;
  v.hf_strides.offset = latent.plain * rank;
  v.hf_strides.row = rank;
  list.add_linear(Role::kAttnOutput, {spec.hidden, heads * latent.value}, block.output_bias);
}

void add_attention(SlotList& list, const ModelSpec& spec, const BlockSpec& block, const Dialect& dialect) {
  const std::int64_t q_rows = std::int64_t{block.n_heads} * block.head_dim;
  const std::int64_t kv_rows = std::int64_t{block.n_kv_heads} * block.head_dim;
  const RowOrder q_hf = {dialect.hf_rope, block.n_heads, 0}, q_gguf = {dialect.gguf_rope, block.n_heads, 0};
  const RowOrder k_hf = {dialect.hf_rope, block.n_kv_heads, 0}, k_gguf = {dialect.gguf_rope, block.n_kv_heads, 0};
  if (block.qkv_fused) {
    const RowOrder order = {dialect.hf_qkv, block.n_kv_heads, block.n_heads / block.n_kv_heads};
    list.add_linear(Role::kAttnQkv, {q_rows + 2 * kv_rows, spec.hidden}, block.qkv_bias, order);
  } else {
    list.add_linear(Role::kAttnQ, {q_rows, spec.hidden}, block.qkv_bias, q_hf, q_gguf);
    list.add_linear(Role::kAttnK, {kv_rows, spec.hidden}, block.qkv_bias, k_hf, k_gguf);
    list.add_linear(Role::kAttnV, {kv_rows, spec.hidden}, block.qkv_bias);
  }
  if (block.qk_norm != QkNorm::kNone && block.qk_norm != QkNorm::kAfterRope) {
    list.add_head_norm(Role::kAttnQNorm, block, block.n_heads);
    list.add_head_norm(Role::kAttnKNorm, block, block.n_kv_heads);
  }
  if (block.sinks) list.add(Role::kAttnSinks, {block.n_heads});
  list.add_linear(Role::kAttnOutput, {spec.hidden, q_rows}, block.output_bias);
}

// Of a matrix of each expert, (experts, out, in) or of one (out, in): the `which`th of those that share a tensor.
Strides stack_strides(const Shape& weight, const Dialect& dialect, bool shares, int which) {
  const std::int64_t out = Strides::rows_of_matrix(weight), in = weight.cols(), height = shares ? 2 * out : out;
  const bool turns = shares && dialect.hf_gate_up == GateUp::kTurns;
  std::vector<std::int64_t> dims(weight.dims().begin(), weight.dims().end());
  dims[dims.size() - 2] = height;
  const Strides strides = {Shape(dims), which * (turns ? in : out * in), height * in, turns ? 2 * in : in, 1};
  return dialect.hf_experts_transposed && weight.rank() == 3 ? strides.turned() : strides;
}

// Of their biases, (experts, out).
Strides bias_strides(const Shape& bias, const Dialect& dialect, int which) {
  const bool turns = dialect.hf_gate_up == GateUp::kTurns;
  return {{bias[0], 2 * bias[1]}, turns ? which : which * bias[1], 0, 2 * bias[1], turns ? 2 : 1};
}

// Gate and up. In Hugging Face's files they share a tensor where they have one name.
void add_gate_up(SlotList& list, ModelSpec& spec, const Dialect& dialect, Role gate, Role up, const Shape& shape) {
  const RoleNames* names = find_names(dialect.names, gate);
  const RoleNames* others = find_names(dialect.names, up);
  const bool shares = names != nullptr && others != nullptr && names->hf == others->hf;
  const bool stacked = shape.rank() == 3 && dialect.hf_experts_transposed;
  for (int which = 0; which < 2; ++which) {
    WeightSlot& slot = list.add(which == 0 ? gate : up, shape);
    if (shares || stacked) slot.hf_strides = stack_strides(shape, dialect, shares, which);
  }
  if (shape.rank() < 3 || !spec.blocks[static_cast<std::size_t>(spec.weights.back().layer)].experts.bias) return;
  for (int which = 0; which < 2; ++which) {
    WeightSlot& slot = list.add(which == 0 ? gate : up, {shape[0], shape[1]}, true);
    if (shares) slot.hf_strides = bias_strides(slot.shape, dialect, which);
  }
}

void add_experts(SlotList& list, ModelSpec& spec, const ExpertSpec& experts, const Dialect& dialect) {
  list.add(Role::kRouter, {experts.count, spec.hidden});
  if (experts.score_bias) list.add(Role::kRouterBias, {experts.count}, true);
  if (experts.bias) list.add(Role::kRouter, {experts.count}, true);
  const Shape stack = {experts.count, experts.ffn, spec.hidden};
  add_gate_up(list, spec, dialect, Role::kExpertGate, Role::kExpertUp, stack);
  WeightSlot& down = list.add(Role::kExpertDown, {experts.count, spec.hidden, experts.ffn});
  if (dialect.hf_experts_transposed) down.hf_strides = stack_strides(down.shape, dialect, false, 0);
  if (experts.bias) list.add(Role::kExpertDown, {experts.count, spec.hidden}, true);
  if (experts.shared == 0) return;
  if (experts.shared_gated) list.add(Role::kSharedScale, {spec.hidden}).hf_row = true;
  add_gate_up(list, spec, dialect, Role::kSharedGate, Role::kSharedUp, {experts.shared, spec.hidden});
  list.add(Role::kSharedDown, {spec.hidden, experts.shared});
}

void add_feed_forward(SlotList& list, const ModelSpec& spec, const BlockSpec& block) {
  if (block.gated && block.gate_up_fused) {
    list.add_linear(Role::kFfnGateUp, {2 * block.ffn, spec.hidden}, block.ffn_bias);
  } else {
    if (block.gated) list.add_linear(Role::kFfnGate, {block.ffn, spec.hidden}, block.ffn_bias);
    list.add_linear(Role::kFfnUp, {block.ffn, spec.hidden}, block.ffn_bias);
  }
  list.add_linear(Role::kFfnDown, {spec.hidden, block.ffn}, block.ffn_bias);
}

void add_block(SlotList& list, ModelSpec& spec, int layer, const Dialect& dialect) {
  const BlockSpec& block = spec.blocks[static_cast<std::size_t>(layer)];
  list.set_layer(layer);
  if (block.attn_norm) list.add_norm(Role::kAttnNorm, spec.hidden);
  if (block.latent.kv_rank > 0) {
    add_latent_attention(list, spec, block, dialect);
  } else {
    add_attention(list, spec, block, dialect);
  }
  if (block.attn_post_norm) list.add_norm(Role::kAttnPostNorm, spec.hidden);
  if (block.ffn_norm) list.add_norm(Role::kFfnNorm, spec.hidden);
  if (block.experts.count > 0) {
    add_experts(list, spec, block.experts, dialect);
  } else {
    add_feed_forward(list, spec, block);
  }
  if (block.ffn_post_norm) list.add_norm(Role::kFfnPostNorm, spec.hidden);
}

void add_rope_factors(SlotList& list, const ModelSpec& spec, bool from_gguf) {
  const Shape shape = {spec.rope.dims / 2};
  const bool longrope = spec.rope.scaling == RopeScaling::kLongRope;
  const bool factors = spec.rope.scaling == RopeScaling::kLlama3 || (!longrope && !spec.rope.factors.empty());
  if (factors || from_gguf) list.add(Role::kRopeFactors, shape).optional = from_gguf;
  if (!longrope && !from_gguf) return;
  list.add(Role::kRopeFactorsLong, shape).optional = from_gguf;
  list.add(Role::kRopeFactorsShort, shape).optional = from_gguf;
}

}  // namespace

void add_decoder_weights(ModelSpec& spec, const Dialect& dialect, bool from_gguf) {
  validate(spec);  // shapes are made of its sizes
  spec.weights.clear();
  SlotList list(spec, dialect, from_gguf);
  list.add(Role::kTokenEmbedding, {spec.vocab, spec.embedding_size()});
  if (spec.positions == Positions::kLearned) {
    list.add(Role::kPositionEmbedding, {spec.context + spec.position_offset, spec.hidden});
  }
  if (spec.embedding_size() != spec.hidden) list.add(Role::kEmbeddingIn, {spec.hidden, spec.embedding});
  for (int layer = 0; layer < spec.n_layers(); ++layer) add_block(list, spec, layer, dialect);
  list.set_layer(-1);
  if (spec.output_norm) list.add_norm(Role::kOutputNorm, spec.hidden);
  if (spec.embedding_size() != spec.hidden) list.add(Role::kEmbeddingOut, {spec.embedding, spec.hidden});
  if (!spec.tied) list.add(Role::kOutput, {spec.vocab, spec.embedding_size()}).optional = from_gguf;
  if (spec.head_bias || from_gguf) list.add(Role::kOutput, {spec.vocab}, true).optional = from_gguf;
  if (spec.positions == Positions::kRotary) add_rope_factors(list, spec, from_gguf);
}

}  // namespace nibble::model
