// Granite MoE: Llama with four multipliers and a mixture of experts, in Hugging Face's files stacked, gate over up; the
// "shared" kind has one expert for all tokens.
#include "base/error.h"
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/experts.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"
#include "model/multipliers.h"

namespace nibble::model::granite_moe {

namespace {

constexpr std::string_view kModelTypes[] = {"granitemoe", "granitemoeshared"};
constexpr RoleNames kNames[] = {
    {Role::kRouter, "block_sparse_moe.router.layer"},   {Role::kExpertGate, "block_sparse_moe.input_linear"},
    {Role::kExpertUp, "block_sparse_moe.input_linear"}, {Role::kExpertDown, "block_sparse_moe.output_linear"},
    {Role::kSharedGate, "shared_mlp.input_linear"},     {Role::kSharedUp, "shared_mlp.input_linear"},
    {Role::kSharedDown, "shared_mlp.output_linear"}};
constexpr Dialect kDialect = {.names = kNames, .gguf_rope = RowOrder::Kind::kPairs, .hf_gate_up = GateUp::kHalves};
constexpr ExpertDefaults kExperts = {
    .count_key = "num_local_experts", .count = 8, .used = 2, .shared_key = "shared_intermediate_size"};

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(config, {.norm_eps = 1e-6, .context = 2048});
  spec.arch = "granitemoe";
  multipliers_from_hf(config, spec);
  experts_from_hf(config, kExperts, spec);
  for (BlockSpec& block : spec.blocks) {
    block.qkv_bias = block.output_bias = config.get("attention_bias", false);
    block.experts.shared_gated = false;
  }
  add_decoder_weights(spec, kDialect, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "granitemoe");
  multipliers_from_gguf(metadata, spec);
  for (BlockSpec& block : spec.blocks) block.experts.shared_gated = false;
  add_decoder_weights(spec, kDialect, true);
  return spec;
}

void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  decoder_to_gguf(spec, metadata);
  multipliers_to_gguf(spec, metadata);
}

json::Value to_hf(const ModelSpec& spec) {
  const BlockSpec& block = spec.blocks.at(0);
  if (block.qkv_bias != block.output_bias) {
    fail(ErrorCode::kUnsupported, "biases on some attention projections only have no form in this configuration");
  }
  const bool shared = block.experts.shared > 0;
  json::Value config = decoder_to_hf(spec, kModelTypes[shared ? 1 : 0],
                                     shared ? "GraniteMoeSharedForCausalLM" : "GraniteMoeForCausalLM");
  experts_to_hf(spec, kExperts, config);
  config.set("attention_bias", block.qkv_bias);
  multipliers_to_hf(spec, config);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"granitemoe", kModelTypes, from_hf, from_gguf, to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::granite_moe
