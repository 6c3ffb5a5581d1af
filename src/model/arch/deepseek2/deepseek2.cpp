// DeepSeek V2 and V3: latent attention, and a mixture of experts of which one half runs for every token. V3 scores
// experts by sigmoids with a bias for the choice; both may choose from the best groups only.
#include "base/checked.h"
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/experts.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"
#include "model/latent.h"

namespace nibble::model::deepseek2 {

namespace {

constexpr std::string_view kModelTypes[] = {"deepseek_v2", "deepseek_v3"};
constexpr RoleNames kNames[] = {{Role::kSharedGate, "mlp.shared_experts.gate_proj"},
                                {Role::kSharedUp, "mlp.shared_experts.up_proj"},
                                {Role::kSharedDown, "mlp.shared_experts.down_proj"}};
constexpr Dialect kDialect = {.names = kNames, .hf_rope = RowOrder::Kind::kPairs, .gguf_rope = RowOrder::Kind::kPairs};
constexpr Dialect kHalvesDialect = {.names = kNames, .gguf_rope = RowOrder::Kind::kPairs};
constexpr ExpertDefaults kSecond = {
    .count_key = "n_routed_experts", .count = 64, .used = 6, .ffn = 1407, .leading_dense = true};
constexpr ExpertDefaults kThird = {.count_key = "n_routed_experts",
                                   .count = 256,
                                   .used = 8,
                                   .ffn = 2048,
                                   .renormalize_key = true,
                                   .renormalize = true,
                                   .leading_dense = true};

void read_routing(const json::Value& config, bool third, ModelSpec& spec) {
  const bool grouped = third || config.get("topk_method", "greedy") == "group_limited_greedy";
  const auto number = [&](std::string_view key, int fallback) {
    return with_context(format_text("config.json '{}'", key),
                        [&] { return checked_cast<int>(config.get(key, fallback)); });
  };
  for (BlockSpec& block : spec.blocks) {
    ExpertSpec& experts = block.experts;
    if (experts.count == 0) continue;
    experts.shared = checked_mul(std::int64_t{number("n_shared_experts", third ? 1 : 2)}, experts.ffn);
    experts.shared_gated = false;
    experts.scale = config.get("routed_scaling_factor", third ? 2.5 : 1.0);
    experts.scoring = third ? Scoring::kSigmoid : Scoring::kSoftmax;
    experts.score_bias = third;
    if (!third) experts.renormalize = false;
    if (!grouped) continue;
    experts.groups = number("n_group", third ? 8 : 1);
    experts.groups_used = number("topk_group", third ? 4 : 1);
  }
}

ModelSpec from_hf(const json::Value& config) {
  const bool third = config.get("model_type", "") == "deepseek_v3";
  if (!third) require_flag(config, "norm_topk_prob", false, false);
  json::Value usual = config;  // 'head_dim' is the rotated part, whatever a file says
  usual.set("head_dim", config.get("qk_rope_head_dim", 64));
  usual.set("num_key_value_heads", config.at("num_attention_heads"));
  ModelSpec spec = decoder_from_hf(usual, {.norm_eps = 1e-6, .context = third ? 4096 : 2048});
  spec.arch = "deepseek2";
  const int heads = spec.blocks[0].n_heads;
  if (spec.hidden % heads != 0)
    fail(ErrorCode::kFormat, "hidden size {} is no multiple of {} attention heads", spec.hidden, heads);
  for (BlockSpec& block : spec.blocks) block.qkv_bias = block.output_bias = config.get("attention_bias", false);
  latent_from_hf(config, spec);
  const json::Value* count = config.find("n_routed_experts");
  if (count == nullptr || !count->is_null()) experts_from_hf(config, third ? kThird : kSecond, spec);
  read_routing(config, third, spec);
  add_decoder_weights(spec, third && !config.get("rope_interleave", true) ? kHalvesDialect : kDialect, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  if (!metadata.contains("deepseek2.attention.key_length_mla")) {
    fail(ErrorCode::kUnsupported,
         "no key 'deepseek2.attention.key_length_mla': the file is of the older form without it; convert the model "
         "again");
  }
  for (const char* key : {"deepseek2.attention.kv_lora_rank", "deepseek2.rope.dimension_count"}) metadata.get_int(key);
  ModelSpec spec = decoder_from_gguf(metadata, "deepseek2");
  latent_from_gguf(metadata, spec);
  if (spec.rope.scaling == RopeScaling::kYarn) spec.rope.attention_factor = 1;
  for (BlockSpec& block : spec.blocks) {
    ExpertSpec& experts = block.experts;
    if (experts.count == 0) continue;
    experts.shared_gated = false;
    experts.score_bias = experts.scoring == Scoring::kSigmoid;
    experts.renormalize = metadata.get_bool("deepseek2.expert_weights_norm", false);
  }
  add_decoder_weights(spec, kDialect, true);
  return spec;
}

void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  decoder_to_gguf(spec, metadata);
  latent_to_gguf(spec, metadata);
  if (spec.rope.scaling == RopeScaling::kYarn && spec.rope.attention_factor != 1)
    fail(ErrorCode::kUnsupported,
         "yarn with rotations scaled by other than 1 has no form in a GGUF file of 'deepseek2'");
  metadata.erase(arch_key(spec, "rope.scaling.attn_factor"));
  const ExpertSpec& experts = spec.blocks.back().experts;
  metadata.erase(arch_key(spec, "expert_shared_feed_forward_length"));
  const std::int64_t shared = experts.ffn > 0 ? experts.shared / experts.ffn : 0;
  metadata.set(arch_key(spec, "expert_shared_count"), static_cast<std::uint32_t>(shared));
  if (experts.count == 0) return;
  metadata.set(arch_key(spec, "expert_group_count"), static_cast<std::uint32_t>(experts.groups));
  metadata.set(arch_key(spec, "expert_group_used_count"), static_cast<std::uint32_t>(experts.groups_used));
  metadata.set(arch_key(spec, "expert_weights_scale"), static_cast<float>(experts.scale));
  if (experts.renormalize) metadata.set(arch_key(spec, "expert_weights_norm"), true);
}

json::Value to_hf(const ModelSpec& spec) {
  const ExpertSpec& experts = spec.blocks.back().experts;
  const bool third = experts.scoring == Scoring::kSigmoid;
  json::Value config = third ? decoder_to_hf(spec, "deepseek_v3", "DeepseekV3ForCausalLM")
                             : decoder_to_hf(spec, "deepseek_v2", "DeepseekV2ForCausalLM");
  latent_to_hf(spec, config);
  experts_to_hf(spec, third ? kThird : kSecond, config);
  config.set("attention_bias", spec.blocks.at(0).qkv_bias);
  config.set("n_shared_experts", experts.ffn > 0 ? experts.shared / experts.ffn : 0);
  config.set("routed_scaling_factor", experts.scale);
  config.set("n_group", experts.groups);
  config.set("topk_group", experts.groups_used);
  if (third) config.set("scoring_func", "sigmoid");
  config.set("topk_method", third ? "noaux_tc" : experts.groups > 1 ? "group_limited_greedy" : "greedy");
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"deepseek2", kModelTypes, from_hf, from_gguf, to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::deepseek2
