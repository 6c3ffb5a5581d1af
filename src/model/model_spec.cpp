#include "model/model_spec.h"

#include <array>
#include <cmath>

#include "base/error.h"

namespace nibble::model {

std::string_view role_name(Role role) {
  static constexpr std::array<std::string_view, 15> kNames = {
      "token_embd",  "output_norm", "output",   "attn_norm", "attn_q", "attn_k",   "attn_v",    "attn_output",
      "attn_q_norm", "attn_k_norm", "ffn_norm", "ffn_gate",  "ffn_up", "ffn_down", "rope_freqs"};
  static_assert(kNames.size() == static_cast<std::size_t>(Role::kRopeFactors) + 1);
  return kNames[static_cast<std::size_t>(role)];
}

const WeightSlot* ModelSpec::find(Role role, int layer, bool bias) const {
  for (const WeightSlot& slot : weights) {
    if (slot.role == role && slot.layer == layer && slot.bias == bias) return &slot;
  }
  return nullptr;
}

std::uint64_t ModelSpec::parameters() const {
  std::uint64_t sum = 0;
  for (const WeightSlot& slot : weights) {
    if (slot.role != Role::kRopeFactors) sum += static_cast<std::uint64_t>(slot.shape.elements());
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

}  // namespace

void validate(const ModelSpec& spec) {
  check_range("number of layers", spec.n_layers(), 1, 1 << 14);
  check_range("hidden size", spec.hidden, 1, 1 << 20);
  check_range("vocabulary size", spec.vocab, 1, 1 << 26);
  check_range("context length", spec.context, 1, std::int64_t{1} << 40);
  if (!(spec.norm_eps > 0 && spec.norm_eps < 1)) fail(ErrorCode::kFormat, "norm epsilon is {}", spec.norm_eps);
  for (const BlockSpec& block : spec.blocks) {
    check_range("number of attention heads", block.n_heads, 1, 1 << 14);
    check_range("number of key/value heads", block.n_kv_heads, 1, block.n_heads);
    if (block.n_heads % block.n_kv_heads != 0) {
      fail(ErrorCode::kFormat, "{} attention heads do not share {} key/value heads evenly", block.n_heads,
           block.n_kv_heads);
    }
    check_range("head size", block.head_dim, 2, 1 << 12);
    check_range("feed-forward size", block.ffn, 1, 1 << 24);
    check_range("attention window", block.window, 0, std::int64_t{1} << 40);
    check_range("rotated dimensions", spec.rope.dims, 0, block.head_dim);
  }
  const RopeSpec& rope = spec.rope;
  if (rope.dims % 2 != 0) fail(ErrorCode::kFormat, "number of rotated dimensions {} is odd", rope.dims);
  if (!(rope.theta > 0)) fail(ErrorCode::kFormat, "rope base frequency is {}", rope.theta);
  if (!(rope.factor > 0)) fail(ErrorCode::kFormat, "rope scaling factor is {}", rope.factor);
  const bool needs_original = rope.scaling != RopeScaling::kNone && rope.scaling != RopeScaling::kLinear;
  if (needs_original) check_range("original context length", rope.original_context, 1, std::int64_t{1} << 40);
  check_factors(rope.factors, rope.dims);
  check_factors(rope.long_factors, rope.dims);
  if (rope.scaling == RopeScaling::kLongRope && (rope.factors.empty() || rope.long_factors.empty())) {
    fail(ErrorCode::kFormat, "longrope scaling without its short and long factors");
  }
}

}  // namespace nibble::model
