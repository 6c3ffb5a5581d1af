#include "model/model_spec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "base/error.h"
#include "model/rope.h"

namespace nibble::model {

std::string_view role_name(Role role) {
  static constexpr std::array<std::string_view, 41> kNames = {"token_embd",
                                                              "position_embd",
                                                              "embd_proj_in",
                                                              "output_norm",
                                                              "embd_proj_out",
                                                              "output",
                                                              "attn_norm",
                                                              "attn_q",
                                                              "attn_k",
                                                              "attn_v",
                                                              "attn_qkv",
                                                              "attn_q_a",
                                                              "attn_q_a_norm",
                                                              "attn_q_b",
                                                              "attn_kv_a_mqa",
                                                              "attn_kv_a_norm",
                                                              "attn_k_b",
                                                              "attn_v_b",
                                                              "attn_output",
                                                              "attn_q_norm",
                                                              "attn_k_norm",
                                                              "attn_sinks",
                                                              "post_attention_norm",
                                                              "ffn_norm",
                                                              "ffn_gate",
                                                              "ffn_up",
                                                              "ffn_up",
                                                              "ffn_down",
                                                              "post_ffw_norm",
                                                              "ffn_gate_inp",
                                                              "exp_probs_b",
                                                              "ffn_gate_exps",
                                                              "ffn_up_exps",
                                                              "ffn_down_exps",
                                                              "ffn_gate_shexp",
                                                              "ffn_up_shexp",
                                                              "ffn_down_shexp",
                                                              "ffn_gate_inp_shexp",
                                                              "rope_freqs",
                                                              "rope_factors_long",
                                                              "rope_factors_short"};
  static_assert(kNames.size() == static_cast<std::size_t>(Role::kRopeFactorsShort) + 1);
  return kNames[static_cast<std::size_t>(role)];
}

bool is_rope_factors(Role role) {
  return role == Role::kRopeFactors || role == Role::kRopeFactorsLong || role == Role::kRopeFactorsShort;
}

bool is_expert_stack(Role role) {
  return role == Role::kExpertGate || role == Role::kExpertUp || role == Role::kExpertDown;
}

bool is_matrix(Role role) {
  switch (role) {
    case Role::kTokenEmbedding:
    case Role::kPositionEmbedding:
    case Role::kEmbeddingIn:
    case Role::kEmbeddingOut:
    case Role::kOutput:
    case Role::kAttnQ:
    case Role::kAttnK:
    case Role::kAttnV:
    case Role::kAttnQkv:
    case Role::kAttnQA:
    case Role::kAttnQB:
    case Role::kAttnKvA:
    case Role::kAttnKB:
    case Role::kAttnVB:
    case Role::kAttnOutput:
    case Role::kFfnGate:
    case Role::kFfnUp:
    case Role::kFfnGateUp:
    case Role::kFfnDown:
    case Role::kRouter:
    case Role::kExpertGate:
    case Role::kExpertUp:
    case Role::kExpertDown:
    case Role::kSharedGate:
    case Role::kSharedUp:
    case Role::kSharedDown:
      return true;
    default:
      return false;
  }
}

std::vector<std::int32_t> stored_rows(const RowOrder& order, std::int64_t rows) {
  std::vector<std::int32_t> map;
  if (order.kind == RowOrder::Kind::kCanonical) return map;
  map.resize(static_cast<std::size_t>(rows));
  const auto put = [&](std::int64_t canonical, std::int64_t stored) {
    map[static_cast<std::size_t>(canonical)] = static_cast<std::int32_t>(stored);
  };
  if (order.kind == RowOrder::Kind::kPairs) {
    const std::int64_t head = rows / order.heads, tail = order.tail > 0 ? order.tail : head, half = tail / 2;
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t at = row % head - (head - tail);  // in the tail
      put(row, at < 0 ? row : row - at + 2 * (at % half) + at / half);
    }
    return map;
  }
  const std::int64_t per_group = order.group + 2;
  const std::int64_t dim = rows / (order.heads * per_group);
  const std::int64_t n_query = std::int64_t{order.heads} * order.group;
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t head = row / dim;  // of all queries, then keys, then values
    const std::int64_t kv = (head - n_query) % order.heads, part = (head - n_query) / order.heads;
    const std::int64_t at =
        head < n_query ? head / order.group * per_group + head % order.group : kv * per_group + order.group + part;
    put(row, at * dim + row % dim);
  }
  return map;
}

std::vector<std::int32_t> canonical_rows(const RowOrder& order, std::int64_t rows) {
  const std::vector<std::int32_t> stored = stored_rows(order, rows);
  std::vector<std::int32_t> map(stored.size());
  for (std::size_t row = 0; row < stored.size(); ++row) {
    map[static_cast<std::size_t>(stored[row])] = static_cast<std::int32_t>(row);
  }
  return map;
}

Strides Strides::turned() const {
  const std::int64_t height = shape[shape.rank() - 2], width = shape.cols();
  const auto turn = [=](std::int64_t at) { return at % width * height + at / width; };
  std::vector<std::int64_t> dims(shape.dims().begin(), shape.dims().end());
  std::swap(dims[dims.size() - 1], dims[dims.size() - 2]);
  return {Shape(dims), turn(offset), matrix, turn(row), turn(col)};
}

Shape file_shape(const WeightSlot& slot, bool gguf) {
  if (!gguf && slot.hf_parts > 0 && slot.shape.rank() == 1) return {slot.shape[0] / slot.hf_parts};
  if (slot.file_shape.rank() > 0) return slot.file_shape;
  if (gguf) return slot.shape;
  if (!slot.hf_strides.empty()) return slot.hf_strides.shape;
  if (slot.hf_row) return {1, slot.shape[0]};
  if (slot.hf_parts > 0) return {slot.shape[1], slot.shape[2]};
  return slot.hf_transposed && slot.shape.rank() == 2 ? Shape{slot.shape[1], slot.shape[0]} : slot.shape;
}

std::string hf_part_name(const WeightSlot& slot, int index) {
  std::string name = slot.hf_name;
  return name.replace(name.find('*'), 1, std::to_string(index));
}

const WeightSlot* ModelSpec::find(Role role, int layer, bool bias) const {
  for (const WeightSlot& slot : weights) {
    if (slot.role == role && slot.layer == layer && slot.bias == bias) return &slot;
  }
  return nullptr;
}

double ModelSpec::used_share(const WeightSlot& slot) const {
  if (!is_expert_stack(slot.role)) return 1;
  const ExpertSpec& experts = blocks[static_cast<std::size_t>(slot.layer)].experts;
  return static_cast<double>(experts.used) / experts.count;
}

std::uint64_t ModelSpec::parameters() const {
  std::uint64_t sum = 0;
  for (const WeightSlot& slot : weights) {
    if (!is_rope_factors(slot.role)) sum += static_cast<std::uint64_t>(slot.shape.elements());
  }
  return sum;
}

namespace {

void check_range(std::string_view what, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value < low || value > high) fail(ErrorCode::kFormat, "{} is {}, expected {} to {}", what, value, low, high);
}

void check_factors(const std::vector<float>& factors, int dims) {
  if (factors.empty()) return;
  if (factors.size() != static_cast<std::size_t>(dims) / 2) {
    fail(ErrorCode::kFormat, "{} rope factors for {} rotated dimensions", factors.size(), dims);
  }
  for (const float factor : factors) {
    if (!(factor > 0) || !std::isfinite(factor)) {
      fail(ErrorCode::kFormat, "rope factor {} is no positive number", factor);
    }
  }
}

void check_scale(std::string_view what, double value, bool positive) {
  if (!std::isfinite(value) || value < 0 || (positive && value == 0)) fail(ErrorCode::kFormat, "{} is {}", what, value);
}

void check_rope(const RopeSpec& rope) {
  if (rope.dims % 2 != 0) fail(ErrorCode::kFormat, "number of rotated dimensions {} is odd", rope.dims);
  check_scale("rope base frequency", rope.theta, true);
  check_scale("rope scaling factor", rope.factor, true);
  check_scale("yarn's beta_fast", rope.beta_fast, true);
  check_scale("yarn's beta_slow", rope.beta_slow, true);
  check_scale("rope scaling's low_freq_factor", rope.low_freq_factor, true);
  check_scale("rope scaling's high_freq_factor", rope.high_freq_factor, true);
  check_scale("rope scaling's attention factor", rope.attention_factor, false);
  const bool needs_original = rope.scaling != RopeScaling::kNone && rope.scaling != RopeScaling::kLinear;
  if (needs_original) check_range("original context length", rope.original_context, 1, std::int64_t{1} << 40);
  if (rope.scaling == RopeScaling::kLlama3 && rope.high_freq_factor <= rope.low_freq_factor) {
    fail(ErrorCode::kFormat, "rope scaling's high_freq_factor {} is no greater than low_freq_factor {}",
         rope.high_freq_factor, rope.low_freq_factor);
  }
  if (rope.scaling == RopeScaling::kYarn && rope.theta <= 1) {
    fail(ErrorCode::kFormat, "rope base frequency {} with yarn scaling", rope.theta);
  }
  check_factors(rope.factors, rope.dims);
  check_factors(rope.long_factors, rope.dims);
  if (rope.scaling == RopeScaling::kLongRope && (rope.factors.empty() || rope.long_factors.empty())) {
    fail(ErrorCode::kFormat, "longrope scaling without its short and long factors");
  }
  for (const std::int64_t length : {std::int64_t{1}, rope.original_context + 1}) {
    const RopeFrequencies made = rope_frequencies(rope, length);
    check_scale("rope scaling's attention factor", static_cast<double>(made.attention_factor), true);
    if (std::ranges::all_of(made.inv_freq, [](float frequency) { return std::isfinite(frequency); })) continue;
    fail(ErrorCode::kFormat, "a rope base frequency of {} and a factor of {} rotate infinitely", rope.theta,
         rope.factor);
  }
}

void check_experts(const ExpertSpec& experts) {
  check_range("number of experts", experts.count, 0, 1 << 14);
  check_range("shared feed-forward size", experts.shared, 0, 1 << 24);
  if (experts.count == 0) return;
  check_range("number of experts used", experts.used, 1, experts.count);
  check_range("feed-forward size of an expert", experts.ffn, 1, 1 << 24);
  check_range("number of groups of experts", experts.groups, 1, experts.count);
  check_range("number of groups of experts used", experts.groups_used, 1, experts.groups);
  const int per_group = experts.count / experts.groups;
  if (per_group * experts.groups != experts.count || per_group * experts.groups_used < experts.used) {
    fail(ErrorCode::kFormat, "{} experts do not make {} groups of which {} hold {} experts", experts.count,
         experts.groups, experts.groups_used, experts.used);
  }
  if (!(experts.scale > 0) || !std::isfinite(experts.scale))
    fail(ErrorCode::kFormat, "scale of the experts' weights is {}", experts.scale);
}

void check_latent(const ModelSpec& spec, const BlockSpec& block) {
  const LatentSpec& latent = block.latent;
  check_range("rank of the keys' latent", latent.kv_rank, 0, 1 << 12);
  if (latent.kv_rank == 0) return;
  check_range("rank of the queries' latent", latent.q_rank, 0, 1 << 16);
  check_range("part of a head that is not rotated", latent.plain, 1, 1 << 12);
  check_range("size of a head's value", latent.value, 1, 1 << 12);
  if (block.n_kv_heads != 1 || block.head_dim != spec.rope.dims + latent.kv_rank) {
    fail(ErrorCode::kFormat, "{} key/value heads of {} for a latent of {} and {} rotated dimensions", block.n_kv_heads,
         block.head_dim, latent.kv_rank, spec.rope.dims);
  }
}

void check_block(const ModelSpec& spec, const BlockSpec& block) {
  check_range("number of attention heads", block.n_heads, 1, 1 << 14);
  check_range("number of key/value heads", block.n_kv_heads, 1, block.n_heads);
  if (block.n_heads % block.n_kv_heads != 0) {
    fail(ErrorCode::kFormat, "{} attention heads do not share {} key/value heads evenly", block.n_heads,
         block.n_kv_heads);
  }
  check_range("head size", block.head_dim, 2, 1 << 12);
  check_range("feed-forward size", block.ffn, 1, 1 << 24);
  check_experts(block.experts);
  check_latent(spec, block);
  check_range("attention window", block.window, 0, std::int64_t{1} << 40);
  if (block.norm_sums && (block.parallel || block.experts.count > 0 || !block.attn_post_norm || !block.ffn_post_norm))
    fail(ErrorCode::kUnsupported, "norms of sums go with a norm after each of two dense halves in sequence");
  if (spec.positions != Positions::kRotary || block.rope == BlockRope::kNone) return;
  const RopeSpec& rope = block.rope == BlockRope::kLocal ? spec.local_rope : spec.rope;
  check_range("rotated dimensions", rope.dims, 0, block.head_dim);
}

}  // namespace

std::string cache_scale_name(const ModelSpec& spec, int layer, char side) {
  const WeightSlot* keys = spec.find(Role::kAttnK, layer);
  if (keys == nullptr) keys = spec.find(Role::kAttnQkv, layer);
  if (keys == nullptr) return "";
  const std::string_view weight = keys->hf_name;
  const std::string_view projection = weight.substr(0, weight.rfind('.'));
  return format_text("{}.{}_scale", projection.substr(0, projection.rfind('.')), side);
}

void validate(const ModelSpec& spec) {
  check_range("number of layers", spec.n_layers(), 1, 1 << 10);
  check_range("hidden size", spec.hidden, 1, 1 << 20);
  check_range("embedding size", spec.embedding, 0, 1 << 20);
  check_range("vocabulary size", spec.vocab, 1, 1 << 26);
  check_range("context length", spec.context, 1, std::int64_t{1} << 40);
  if (!(spec.norm_eps > 0 && spec.norm_eps < 1)) fail(ErrorCode::kFormat, "norm epsilon is {}", spec.norm_eps);
  check_scale("embedding scale", spec.embedding_scale, true);
  check_scale("residual scale", spec.residual_scale, true);
  check_scale("attention scale", spec.attention_scale, false);
  check_scale("attention soft cap", spec.attention_softcap, false);
  check_scale("attention temperature scale", spec.temperature_scale, false);
  if (spec.temperature_scale != 0) {
    check_range("span of the attention temperature", spec.temperature_span, 1, std::int64_t{1} << 40);
  }
  check_scale("logit scale", spec.logit_scale, true);
  check_scale("logit soft cap", spec.logit_softcap, false);
  for (const BlockSpec& block : spec.blocks) check_block(spec, block);
  check_rope(spec.rope);
  check_rope(spec.local_rope);
}

}  // namespace nibble::model
