#include "model/links.h"

namespace nibble::model {

namespace {

// The roles of a block that are there.
std::vector<Role> present(const ModelSpec& spec, int layer, std::initializer_list<Role> roles) {
  std::vector<Role> out;
  for (const Role role : roles) {
    if (spec.find(role, layer) != nullptr) out.push_back(role);
  }
  return out;
}

Link norm_link(const ModelSpec& spec, Role norm, std::vector<Role> consumers) {
  Link link;
  link.form = Link::Form::kNorm;
  link.producer = norm;
  link.consumers = std::move(consumers);
  link.channels = spec.hidden;
  return link;
}

Link value_link(const ModelSpec& spec, int layer) {
  const BlockSpec& block = spec.blocks[static_cast<std::size_t>(layer)];
  Link link;
  link.form = Link::Form::kRows;
  link.producer = block.qkv_fused ? Role::kAttnQkv : Role::kAttnV;
  link.consumers = {Role::kAttnOutput};
  link.channels = std::int64_t{block.n_heads} * block.head_dim;
  link.width = block.head_dim;
  link.shared = block.n_heads / block.n_kv_heads;
  if (block.qkv_fused) link.first_row = (std::int64_t{block.n_heads} + block.n_kv_heads) * block.head_dim;
  return link;
}

Link inner_link(const BlockSpec& block) {
  Link link;
  link.form = Link::Form::kRows;
  link.producer = block.gate_up_fused ? Role::kFfnGateUp : Role::kFfnUp;
  link.consumers = {Role::kFfnDown};
  link.channels = block.ffn;
  if (block.gate_up_fused) link.first_row = block.ffn;
  return link;
}

}  // namespace

std::vector<Link> block_links(const ModelSpec& spec, int layer) {
  const BlockSpec& block = spec.blocks.at(static_cast<std::size_t>(layer));
  std::vector<Link> links;
  const std::vector<Role> inner =
      present(spec, layer,
              {Role::kFfnGate, Role::kFfnUp, Role::kFfnGateUp, Role::kRouter, Role::kExpertGate, Role::kExpertUp,
               Role::kSharedGate, Role::kSharedUp, Role::kSharedScale});
  std::vector<Role> outer =
      present(spec, layer, {Role::kAttnQ, Role::kAttnK, Role::kAttnV, Role::kAttnQkv, Role::kAttnQA, Role::kAttnKvA});
  const bool one_norm = block.parallel && !block.ffn_norm;
  if (one_norm) outer.insert(outer.end(), inner.begin(), inner.end());
  const auto has = [&](Role role) { return spec.find(role, layer) != nullptr; };
  if (block.attn_norm && has(Role::kAttnNorm)) links.push_back(norm_link(spec, Role::kAttnNorm, std::move(outer)));
  if (block.latent.kv_rank == 0) links.push_back(value_link(spec, layer));
  if (block.ffn_norm && !one_norm && has(Role::kFfnNorm)) links.push_back(norm_link(spec, Role::kFfnNorm, inner));
  const bool linear = block.gated && block.activation != Activation::kClampedSwish;
  if (linear && block.experts.count == 0) links.push_back(inner_link(block));
  return links;
}

}  // namespace nibble::model
