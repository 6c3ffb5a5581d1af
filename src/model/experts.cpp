#include "model/experts.h"

#include <algorithm>

#include "base/checked.h"
#include "model/gguf_hparams.h"

namespace nibble::model {

namespace {

constexpr std::string_view kCount = "expert_count", kUsed = "expert_used_count", kFfn = "expert_feed_forward_length",
                           kShared = "expert_shared_feed_forward_length", kSharedCount = "expert_shared_count",
                           kScale = "expert_weights_scale", kGating = "expert_gating_func",
                           kGroups = "expert_group_count", kGroupsUsed = "expert_group_used_count",
                           kLeadingDense = "leading_dense_block_count";
constexpr std::int64_t kGatingSoftmax = 1, kGatingSigmoid = 2;

// Those of the first block that has some; none: of no block.
const ExpertSpec& common_experts(const ModelSpec& spec) {
  const auto found = std::ranges::find_if(spec.blocks, [](const BlockSpec& b) { return b.experts.count > 0; });
  const ExpertSpec& experts = found == spec.blocks.end() ? spec.blocks.at(0).experts : found->experts;
  for (const BlockSpec& block : spec.blocks) {
    if (block.experts.count > 0 && block.experts != experts) {
      fail(ErrorCode::kUnsupported, "layers whose experts differ have no form in a file of '{}'", spec.arch);
    }
  }
  return experts;
}

// Blocks before the first with experts; all others must have some.
std::int64_t leading_dense(const ModelSpec& spec) {
  const auto dense = [](const BlockSpec& block) { return block.experts.count == 0; };
  const auto end = std::ranges::find_if_not(spec.blocks, dense);
  if (std::any_of(end, spec.blocks.end(), dense))
    fail(ErrorCode::kUnsupported, "dense layers among those with experts have no form in a file of '{}'", spec.arch);
  return end - spec.blocks.begin();
}

void set_experts(const ExpertSpec& experts, std::int64_t first, ModelSpec& spec) {
  if (first < 0 || first > spec.n_layers())
    fail(ErrorCode::kFormat, "{} dense layers before those with experts, of {} in all", first, spec.n_layers());
  for (std::size_t i = static_cast<std::size_t>(first); i < spec.blocks.size(); ++i) spec.blocks[i].experts = experts;
}

}  // namespace

void experts_from_hf(const json::Value& config, const ExpertDefaults& defaults, ModelSpec& spec) {
  ExpertSpec experts;
  const std::int64_t fallback_ffn = defaults.ffn > 0 ? defaults.ffn : spec.blocks.at(0).ffn;
  experts.count = checked_cast<int>(config.get(defaults.count_key, defaults.count));
  experts.used = checked_cast<int>(config.get("num_experts_per_tok", defaults.used));
  experts.ffn = defaults.ffn > 0 ? config.get("moe_intermediate_size", fallback_ffn) : fallback_ffn;
  if (!defaults.shared_key.empty()) experts.shared = config.get(defaults.shared_key, defaults.shared);
  if (defaults.renormalize_key) experts.renormalize = config.get("norm_topk_prob", defaults.renormalize);
  if (defaults.leading_dense) return set_experts(experts, config.get("first_k_dense_replace", 0), spec);
  const std::int64_t step = config.get("decoder_sparse_step", std::int64_t{1});
  if (step < 1) fail(ErrorCode::kFormat, "config.json 'decoder_sparse_step' is {}", step);
  if (experts.count < 1) fail(ErrorCode::kFormat, "config.json '{}' is {}", defaults.count_key, experts.count);
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    if ((static_cast<std::int64_t>(i) + 1) % step == 0) spec.blocks[i].experts = experts;
  }
  const json::Value* dense = config.find("mlp_only_layers");
  if (dense == nullptr || dense->is_null()) return;
  for (const json::Value& layer : dense->as_array()) {
    const std::int64_t index = layer.as_int();
    if (index >= 0 && index < spec.n_layers()) spec.blocks[static_cast<std::size_t>(index)].experts = {};
  }
}

void experts_to_hf(const ModelSpec& spec, const ExpertDefaults& defaults, json::Value& config) {
  const ExpertSpec& experts = common_experts(spec);
  config.set(defaults.count_key, experts.count);
  config.set("num_experts_per_tok", experts.used);
  if (defaults.ffn > 0) config.set("moe_intermediate_size", experts.ffn);
  if (!defaults.shared_key.empty()) config.set(defaults.shared_key, experts.shared);
  if (defaults.renormalize_key) config.set("norm_topk_prob", experts.renormalize);
  if (defaults.leading_dense) {
    config.set("first_k_dense_replace", leading_dense(spec));
    return;
  }
  json::Array dense;
  for (int i = 0; i < spec.n_layers(); ++i) {
    if (spec.blocks[static_cast<std::size_t>(i)].experts.count == 0) dense.emplace_back(i);
  }
  if (!dense.empty()) config.set("mlp_only_layers", std::move(dense));
}

void experts_from_gguf(const container::Metadata& metadata, ModelSpec& spec) {
  ExpertSpec experts;
  experts.count = checked_cast<int>(metadata.get_int(arch_key(spec, kCount), 0));
  if (experts.count == 0) return;
  experts.used = checked_cast<int>(metadata.get_int(arch_key(spec, kUsed)));
  experts.ffn = metadata.get_int(arch_key(spec, kFfn), spec.blocks.at(0).ffn);
  const std::int64_t shared = metadata.get_int(arch_key(spec, kSharedCount), 0);
  experts.shared = metadata.get_int(arch_key(spec, kShared), checked_mul(shared, experts.ffn));
  experts.scale = metadata.get_float(arch_key(spec, kScale), 1.0);
  const std::int64_t gating = metadata.get_int(arch_key(spec, kGating), kGatingSoftmax);
  if (gating != kGatingSoftmax && gating != kGatingSigmoid)
    fail(ErrorCode::kUnsupported, "key '{}' is {}: only softmax and sigmoid are known", arch_key(spec, kGating),
         gating);
  experts.scoring = gating == kGatingSigmoid ? Scoring::kSigmoid : Scoring::kSoftmax;
  experts.groups = checked_cast<int>(metadata.get_int(arch_key(spec, kGroups), 1));
  experts.groups_used = checked_cast<int>(metadata.get_int(arch_key(spec, kGroupsUsed), experts.groups));
  set_experts(experts, metadata.get_int(arch_key(spec, kLeadingDense), 0), spec);
}

void experts_to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  const ExpertSpec& experts = common_experts(spec);
  if (experts.count == 0) return;
  const auto set = [&](std::string_view key, std::int64_t value) {
    metadata.set(arch_key(spec, key), checked_cast<std::uint32_t>(value));
  };
  set(kCount, experts.count);
  set(kUsed, experts.used);
  set(kFfn, experts.ffn);
  if (experts.shared > 0) set(kShared, experts.shared);
  if (experts.scale != 1) metadata.set(arch_key(spec, kScale), static_cast<float>(experts.scale));
  if (experts.scoring == Scoring::kSigmoid) set(kGating, kGatingSigmoid);
  if (experts.groups > 1) {
    set(kGroups, experts.groups);
    set(kGroupsUsed, experts.groups_used);
  }
  if (const std::int64_t dense = leading_dense(spec); dense > 0) set(kLeadingDense, dense);
}

}  // namespace nibble::model
