// Mixtral: Mistral with a mixture of experts. GGUF knows it as "llama".
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/experts.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::mixtral {

namespace {

constexpr std::string_view kModelTypes[] = {"mixtral"};
constexpr RoleNames kNames[] = {{Role::kRouter, "block_sparse_moe.gate"},
                                {Role::kExpertGate, "block_sparse_moe.experts.*.w1"},
                                {Role::kExpertUp, "block_sparse_moe.experts.*.w3"},
                                {Role::kExpertDown, "block_sparse_moe.experts.*.w2"}};
constexpr Dialect kDialect = {.names = kNames, .gguf_rope = RowOrder::Kind::kPairs};
constexpr ExpertDefaults kExperts = {.count_key = "num_local_experts", .count = 8, .used = 2};

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(config, {.norm_eps = 1e-5, .context = 4096 * 32, .kv_heads = 8});
  spec.arch = "llama";
  const json::Value* window = config.find("sliding_window");
  for (BlockSpec& block : spec.blocks) block.window = window == nullptr || window->is_null() ? 0 : window->as_int();
  experts_from_hf(config, kExperts, spec);
  add_decoder_weights(spec, kDialect, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "llama");
  add_decoder_weights(spec, kDialect, true);
  return spec;
}

bool claims(const ModelSpec& spec) { return spec.blocks.at(0).experts.count > 0; }

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = decoder_to_hf(spec, "mixtral", "MixtralForCausalLM");
  const std::int64_t window = spec.blocks.at(0).window;
  config.set("sliding_window", window > 0 ? json::Value(window) : json::Value());
  experts_to_hf(spec, kExperts, config);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"llama", kModelTypes, from_hf, from_gguf, decoder_to_gguf, to_hf, claims};
  return arch;
}

}  // namespace nibble::model::mixtral
