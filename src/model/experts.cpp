#include "model/experts.h"

#include <algorithm>

#include "base/checked.h"
#include "model/gguf_hparams.h"

namespace nibble::model {

namespace {

constexpr std::string_view kCount = "expert_count", kUsed = "expert_used_count", kFfn = "expert_feed_forward_length",
                           kShared = "expert_shared_feed_forward_length";

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

}  // namespace

void experts_from_hf(const json::Value& config, const ExpertDefaults& defaults, ModelSpec& spec) {
  ExpertSpec experts;
  const std::int64_t fallback_ffn = defaults.ffn > 0 ? defaults.ffn : spec.blocks.at(0).ffn;
  experts.count = checked_cast<int>(config.get(defaults.count_key, defaults.count));
  experts.used = checked_cast<int>(config.get("num_experts_per_tok", defaults.used));
  experts.ffn = defaults.ffn > 0 ? config.get("moe_intermediate_size", fallback_ffn) : fallback_ffn;
  if (defaults.shared > 0) experts.shared = config.get("shared_expert_intermediate_size", defaults.shared);
  if (defaults.renormalize_key) experts.renormalize = config.get("norm_topk_prob", false);
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
  if (defaults.shared > 0) config.set("shared_expert_intermediate_size", experts.shared);
  if (defaults.renormalize_key) config.set("norm_topk_prob", experts.renormalize);
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
  experts.shared = metadata.get_int(arch_key(spec, kShared), 0);
  for (BlockSpec& block : spec.blocks) {
    block.experts = experts;
    block.experts.ffn = metadata.get_int(arch_key(spec, kFfn), block.ffn);
  }
}

void experts_to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  const ExpertSpec& experts = common_experts(spec);
  if (experts.count == 0) return;
  metadata.set(arch_key(spec, kCount), checked_cast<std::uint32_t>(experts.count));
  metadata.set(arch_key(spec, kUsed), checked_cast<std::uint32_t>(experts.used));
  metadata.set(arch_key(spec, kFfn), checked_cast<std::uint32_t>(experts.ffn));
  if (experts.shared > 0) metadata.set(arch_key(spec, kShared), checked_cast<std::uint32_t>(experts.shared));
}

}  // namespace nibble::model
