// gpt-oss: experts with biases and a clamped gate, attention sinks, a window in every other block. In Hugging Face's
// files gate and up lie in turns, transposed where they are plain numbers.
#include "base/error.h"
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/experts.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::gpt_oss {

namespace {

constexpr std::string_view kModelTypes[] = {"gpt_oss"};
constexpr RoleNames kNames[] = {{Role::kFfnNorm, {}, "post_attention_norm"},
                                {Role::kRouter, "mlp.router"},
                                {Role::kExpertGate, "mlp.experts.gate_up_proj", {}, true},
                                {Role::kExpertUp, "mlp.experts.gate_up_proj", {}, true},
                                {Role::kExpertDown, "mlp.experts.down_proj", {}, true}};
constexpr Dialect kDialect = {.names = kNames, .hf_experts_transposed = true, .hf_gate_up = GateUp::kTurns};
constexpr ExpertDefaults kExperts = {.count_key = "num_local_experts", .count = 128, .used = 4};
constexpr std::int64_t kPeriod = 2, kWindow = 128;

void complete(ModelSpec& spec, bool from_gguf) {
  for (BlockSpec& block : spec.blocks) {
    block.activation = Activation::kClampedSwish;
    block.sinks = true;
    block.experts.bias = true;
  }
  add_decoder_weights(spec, kDialect, from_gguf);
}

// What the configuration class takes where the file says nothing.
json::Value with_rope(const json::Value& config) {
  for (const std::string_view key : {"rope_parameters", "rope_scaling"}) {
    const json::Value* rope = config.find(key);
    if (rope != nullptr && !rope->is_null()) return config;
  }
  json::Value rope;
  rope.set("rope_type", "yarn");
  rope.set("factor", 32.0);
  rope.set("original_max_position_embeddings", 4096);
  rope.set("truncate", false);
  json::Value out = config;
  out.set("rope_scaling", std::move(rope));
  return out;
}

void require_number(const json::Value& config, std::string_view key, double value) {
  if (config.get(key, value) != value) fail(ErrorCode::kUnsupported, "config.json '{}' is not {}", key, value);
}

ModelSpec from_hf(const json::Value& config) {
  ModelSpec spec = decoder_from_hf(
      with_rope(config), {.norm_eps = 1e-5, .context = 131072, .kv_heads = 8, .head_dim = 64, .theta = 150000});
  spec.arch = "gpt-oss";
  if (spec.blocks.at(0).activation != Activation::kSilu) {
    fail(ErrorCode::kUnsupported, "config.json 'hidden_act' is not silu");
  }
  require_number(config, "swiglu_alpha", 1.702);
  require_number(config, "swiglu_limit", 7);
  experts_from_hf(config, kExperts, spec);
  const std::vector<bool> sliding =
      layers_of_type(spec, config, "sliding_attention", [](std::int64_t layer) { return layer % kPeriod == 0; });
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    BlockSpec& block = spec.blocks[i];
    block.qkv_bias = block.output_bias = config.get("attention_bias", true);
    if (sliding[i]) block.window = window_from(config, kWindow);
  }
  complete(spec, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "gpt-oss");
  spec.rope.truncate = false;
  windows_from_gguf(metadata, kPeriod, spec);
  complete(spec, true);
  return spec;
}

void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  decoder_to_gguf(spec, metadata);
  windows_to_gguf(spec, kPeriod, metadata);
}

json::Value to_hf(const ModelSpec& spec) {
  ModelSpec usual = spec;
  for (BlockSpec& block : usual.blocks) block.activation = Activation::kSilu;  // the configuration's word for it
  json::Value config = decoder_to_hf(usual, "gpt_oss", "GptOssForCausalLM");
  config.set("attention_bias", spec.blocks.at(0).qkv_bias);
  add_layer_windows(spec, config);
  if (config.find("sliding_window") == nullptr) config.set("sliding_window", json::Value());
  experts_to_hf(spec, kExperts, config);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"gpt-oss", kModelTypes, from_hf, from_gguf, to_gguf, to_hf};
  return arch;
}

}  // namespace nibble::model::gpt_oss
