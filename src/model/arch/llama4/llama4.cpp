// Llama 4, its text model: experts that are given weighed inputs, beside one for all tokens, among dense blocks;
// attention in chunks, and in every fourth block over everything, without a rotation, by queries that grow with their
// position.
#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/experts.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::llama4 {

namespace {

constexpr std::string_view kModelTypes[] = {"llama4_text"};
constexpr std::string_view kLargerTypes[] = {"llama4"};
constexpr RoleNames kNames[] = {{Role::kFfnGate, "feed_forward.gate_proj"},
                                {Role::kFfnUp, "feed_forward.up_proj"},
                                {Role::kFfnDown, "feed_forward.down_proj"},
                                {Role::kRouter, "feed_forward.router"},
                                {Role::kExpertGate, "feed_forward.experts.gate_up_proj", {}, true},
                                {Role::kExpertUp, "feed_forward.experts.gate_up_proj", {}, true},
                                {Role::kExpertDown, "feed_forward.experts.down_proj", {}, true},
                                {Role::kSharedGate, "feed_forward.shared_expert.gate_proj"},
                                {Role::kSharedUp, "feed_forward.shared_expert.up_proj"},
                                {Role::kSharedDown, "feed_forward.shared_expert.down_proj"}};
constexpr Dialect kDialect = {.names = kNames,
                              .hf_rope = RowOrder::Kind::kPairs,
                              .gguf_rope = RowOrder::Kind::kPairs,
                              .hf_experts_transposed = true};
constexpr KeyAlias kAliases[] = {{"intermediate_size_mlp", "intermediate_size"}};
constexpr ExpertDefaults kExperts = {.count_key = "num_local_experts", .count = 16, .used = 1};
constexpr std::string_view kStep = "interleave_moe_layer_step";
// What GGUF's files have no keys for.
constexpr std::int64_t kPeriod = 4, kChunk = 8192;
constexpr double kTemperature = 0.1;
constexpr int kExpertsWithoutNorm = 128;

void complete(ModelSpec& spec, bool from_gguf) {
  spec.temperature_unrotated = spec.temperature_scale != 0;
  for (BlockSpec& block : spec.blocks) {
    block.chunked = block.window > 0;
    if (block.experts.count == 0) continue;
    block.experts.shared = block.experts.ffn;
    block.experts.shared_gated = false;
    block.experts.scoring = Scoring::kSigmoid;
    block.experts.renormalize = false;
    block.experts.weigh_inputs = true;
  }
  add_decoder_weights(spec, kDialect, from_gguf);
}

// Blocks outside the list, or outside the steps, are dense.
void choose_experts(const json::Value& config, ModelSpec& spec) {
  const std::int64_t step = config.get(kStep, std::int64_t{1});
  if (step < 1) fail(ErrorCode::kFormat, "config.json '{}' is {}", kStep, step);
  const json::Value* listed = config.find("moe_layers");
  std::vector<std::int64_t> layers;
  if (listed != nullptr && !listed->is_null()) {
    for (const json::Value& layer : listed->as_array()) layers.push_back(layer.as_int());
  } else {
    for (std::int64_t layer = step - 1; layer < spec.n_layers(); layer += step) layers.push_back(layer);
  }
  for (std::int64_t i = 0; i < spec.n_layers(); ++i) {
    if (std::ranges::find(layers, i) == layers.end()) spec.blocks[static_cast<std::size_t>(i)].experts = {};
  }
}

// 'no_rope_layers' has a 1 for each block with a rotation.
std::vector<bool> rotated_layers(const json::Value& config, const ModelSpec& spec) {
  std::vector<bool> rotated(spec.blocks.size());
  const json::Value* listed = config.find("no_rope_layers");
  const bool given = listed != nullptr && !listed->is_null() && !listed->as_array().empty();
  const std::int64_t period = config.get("no_rope_layer_interval", kPeriod);
  if (period < 1) fail(ErrorCode::kFormat, "config.json 'no_rope_layer_interval' is {}", period);
  if (given && listed->as_array().size() < rotated.size()) {
    fail(ErrorCode::kFormat, "config.json 'no_rope_layers' has {} entries for {} layers", listed->as_array().size(),
         rotated.size());
  }
  for (std::size_t i = 0; i < rotated.size(); ++i) {
    rotated[i] = given ? listed->as_array()[i].as_int() != 0 : (static_cast<std::int64_t>(i) + 1) % period != 0;
  }
  return rotated;
}

void set_temperature(const json::Value& config, ModelSpec& spec) {
  const json::Value* tuned = config.find("attn_temperature_tuning");  // a switch, or a number in older files
  if (tuned != nullptr && (tuned->is_number() ? tuned->as_number() == 0 : !tuned->as_bool())) return;
  spec.temperature_scale = config.get("attn_scale", kTemperature);
  spec.temperature_span = config.get("floor_scale", kChunk);
}

ModelSpec from_hf(const json::Value& config) {
  json::Value usual = config;
  if (config.find(kAliases[0].own) == nullptr) usual.set(kAliases[0].own, 16384);
  ModelSpec spec =
      decoder_from_hf(with_usual_keys(usual, kAliases),
                      {.norm_eps = 1e-5, .context = 4096 * 32, .kv_heads = 8, .head_dim = 128, .theta = 500000});
  spec.arch = "llama4";
  experts_from_hf(config, kExperts, spec);
  for (BlockSpec& block : spec.blocks) block.experts.ffn = config.get("intermediate_size", std::int64_t{8192});
  choose_experts(config, spec);
  set_temperature(config, spec);
  const std::vector<bool> rotated = rotated_layers(config, spec);
  const json::Value* types = config.find("layer_types");
  const bool typed = types != nullptr && types->is_array();
  const std::vector<bool> chunked = typed ? layers_of_type(spec, config, "chunked_attention", nullptr) : rotated;
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    BlockSpec& block = spec.blocks[i];
    block.qkv_bias = block.output_bias = config.get("attention_bias", false);
    if (!rotated[i]) block.rope = BlockRope::kNone;
    if (rotated[i] && config.get("use_qk_norm", true)) block.qk_norm = QkNorm::kAfterRope;
    if (chunked[i]) block.window = config.get("attention_chunk_size", kChunk);
  }
  complete(spec, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "llama4");
  if (metadata.contains(arch_key(spec, "attention.sliding_window"))) {
    fail(ErrorCode::kUnsupported, "key '{}': models without chunks are not known",
         arch_key(spec, "attention.sliding_window"));
  }
  const std::int64_t step = metadata.get_int(arch_key(spec, kStep));
  if (step < 1) fail(ErrorCode::kFormat, "key '{}' is {}", arch_key(spec, kStep), step);
  spec.temperature_scale = kTemperature;
  spec.temperature_span = kChunk;
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    BlockSpec& block = spec.blocks[i];
    const auto layer = static_cast<std::int64_t>(i) + 1;
    const bool normed = block.experts.count != kExpertsWithoutNorm;
    if (layer % step != 0) block.experts = {};
    if (layer % kPeriod == 0) {
      block.rope = BlockRope::kNone;
    } else {
      block.window = kChunk;
      if (normed) block.qk_norm = QkNorm::kAfterRope;
    }
  }
  complete(spec, true);
  return spec;
}

std::vector<std::int64_t> layers_with_experts(const ModelSpec& spec) {
  std::vector<std::int64_t> layers;
  for (int i = 0; i < spec.n_layers(); ++i) {
    if (spec.blocks[static_cast<std::size_t>(i)].experts.count > 0) layers.push_back(i);
  }
  return layers;
}

void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  const std::vector<std::int64_t> layers = layers_with_experts(spec);
  if (layers.empty()) fail(ErrorCode::kUnsupported, "a model without experts has no form in a file of '{}'", spec.arch);
  ModelSpec everywhere = spec;  // the step tells which blocks are dense
  for (BlockSpec& block : everywhere.blocks) {
    if (block.experts.count == 0) block.experts = spec.blocks[static_cast<std::size_t>(layers[0])].experts;
  }
  decoder_to_gguf(everywhere, metadata);
  metadata.erase(arch_key(spec, "attention.sliding_window"));
  metadata.erase(arch_key(spec, "expert_shared_feed_forward_length"));  // as that of an expert
  metadata.set(arch_key(spec, kStep), checked_cast<std::uint32_t>(layers[0] + 1));
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = decoder_to_hf(spec, "llama4_text", "Llama4ForCausalLM");
  const BlockSpec& block = spec.blocks.at(0);
  const std::vector<std::int64_t> layers = layers_with_experts(spec);
  json::Array listed, rotated;
  std::int64_t chunk = kChunk;
  bool normed = false;
  for (const std::int64_t layer : layers) listed.emplace_back(layer);
  for (const BlockSpec& other : spec.blocks) {
    rotated.emplace_back(other.rope == BlockRope::kNone ? 0 : 1);
    normed = normed || other.qk_norm == QkNorm::kAfterRope;
    if (other.window > 0) chunk = other.window;
  }
  const ExpertSpec& experts = layers.empty() ? block.experts : spec.blocks[static_cast<std::size_t>(layers[0])].experts;
  config.set("intermediate_size_mlp", block.ffn);
  config.set("intermediate_size", experts.ffn);
  config.set("num_local_experts", experts.count);
  config.set("num_experts_per_tok", experts.used);
  config.set("moe_layers", std::move(listed));
  config.set("no_rope_layers", std::move(rotated));
  config.set("attention_chunk_size", chunk);
  config.set("use_qk_norm", normed);
  config.set("attn_temperature_tuning", spec.temperature_scale != 0);
  config.set("attn_scale", spec.temperature_scale != 0 ? spec.temperature_scale : kTemperature);
  config.set("floor_scale", spec.temperature_scale != 0 ? spec.temperature_span : kChunk);
  config.set("attention_bias", block.qkv_bias);
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"llama4", kModelTypes, from_hf, from_gguf, to_gguf, to_hf, nullptr, kLargerTypes};
  return arch;
}

}  // namespace nibble::model::llama4
