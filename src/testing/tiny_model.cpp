#include "testing/tiny_model.h"

#include <algorithm>
#include <cmath>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/rng.h"
#include "container/checkpoint.h"
#include "encoding/encoding.h"
#include "model/arch.h"

namespace nibble::testing {

namespace {

constexpr int kBytes = 256;

json::Value object(std::initializer_list<std::pair<std::string, json::Value>> members) {
  return json::Object(members.begin(), members.end());
}

std::string utf8(int code) {
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

// GPT-2's alphabet: printable bytes stand for themselves, the others for the characters from U+0100 on.
std::vector<std::string> byte_alphabet() {
  std::vector<std::string> out;
  int next = 256;
  for (int byte = 0; byte < kBytes; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
    out.push_back(utf8(printable ? byte : next++));
  }
  return out;
}

void write_tokenizer(const std::filesystem::path& folder) {
  json::Value vocab = json::Object{};
  const auto alphabet = byte_alphabet();
  for (int i = 0; i < kBytes; ++i) vocab.set(alphabet[static_cast<std::size_t>(i)], i);
  json::Value added = json::Array{};
  for (const auto& [id, text] : {std::pair(kBytes, "<s>"), {kBytes + 1, "</s>"}}) {
    added.push_back(object({{"id", id},
                            {"content", text},
                            {"special", true},
                            {"single_word", false},
                            {"lstrip", false},
                            {"rstrip", false},
                            {"normalized", false}}));
  }
  const json::Value byte_level =
      object({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}});
  const json::Value tokenizer =
      object({{"version", "1.0"},
              {"added_tokens", added},
              {"normalizer", nullptr},
              {"pre_tokenizer", byte_level},
              {"post_processor", nullptr},
              {"decoder", byte_level},
              {"model", object({{"type", "BPE"}, {"vocab", vocab}, {"merges", json::Array{}}})}});
  write_file_atomically(folder / "tokenizer.json", json::dump(tokenizer));
  write_file_atomically(
      folder / "tokenizer_config.json",
      json::dump(
          object({{"tokenizer_class", "PreTrainedTokenizerFast"}, {"bos_token", "<s>"}, {"eos_token", "</s>"}})));
}

std::vector<float> random_weight(const model::WeightSlot& slot, std::int64_t n, float norm_centre, std::uint64_t seed,
                                 std::uint64_t stream) {
  std::vector<float> values(static_cast<std::size_t>(n));
  const bool vector = slot.shape.rank() == 1;
  const float scale = vector ? 0.1f : std::sqrt(2.0f / static_cast<float>(slot.shape.cols()));
  const float centre = vector && !slot.bias ? norm_centre : 0.0f;
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = centre + scale * random_normal(seed, stream, i);
  return values;
}

// Files of some architectures can only say that the experts' weights are renormalized, of others that they are not.
json::Value with_sayable_experts(json::Value config) {
  config.set("norm_topk_prob", true);
  const model::Arch& arch = model::arch_by_model_type(config.get("model_type", ""));
  try {
    container::Metadata metadata;
    model::write_gguf_keys(arch.from_hf(config), metadata);
  } catch (const Error&) {
    config.set("norm_topk_prob", false);
  }
  return config;
}

}  // namespace

json::Value tiny_config(const std::string& model_type) {
  return with_sayable_experts(object({{"model_type", model_type},
                                      {"hidden_size", 96},
                                      {"intermediate_size", 160},
                                      {"num_hidden_layers", 2},
                                      {"num_attention_heads", 6},
                                      {"num_key_value_heads", 2},
                                      {"head_dim", 16},
                                      {"vocab_size", 288},
                                      {"max_position_embeddings", 192},
                                      {"rms_norm_eps", 1e-5},
                                      {"rope_theta", 10000.0},
                                      {"num_experts", 4},
                                      {"num_local_experts", 4},
                                      {"num_experts_per_tok", 2},
                                      {"moe_intermediate_size", 64},
                                      {"shared_expert_intermediate_size", 96},
                                      {"shared_intermediate_size", 64},
                                      {"intermediate_size_mlp", 160},
                                      {"n_routed_experts", 4},
                                      {"n_shared_experts", 1},
                                      {"first_k_dense_replace", 1},
                                      {"n_group", 2},
                                      {"topk_group", 1},
                                      {"q_lora_rank", 40},
                                      {"kv_lora_rank", 48},
                                      {"qk_nope_head_dim", 24},
                                      {"qk_rope_head_dim", 8},
                                      {"v_head_dim", 20},
                                      {"attention_multiplier", 0.25},  // for those that have it: 1 is the default
                                      {"tie_word_embeddings", false},
                                      {"bos_token_id", kBytes},
                                      {"eos_token_id", kBytes + 1}}));
}

std::vector<TinyVariant> tiny_variants() {
  std::vector<TinyVariant> out;
  for (const model::Arch* arch : model::all_entries()) {
    for (const std::string_view type : arch->hf_model_types)
      out.push_back({std::string(type), tiny_config(std::string(type))});
  }
  const std::size_t n_plain = out.size();
  const auto with = [&](std::size_t plain, const std::string& what,
                        std::initializer_list<std::pair<std::string, json::Value>> members) {
    TinyVariant variant = out[plain];
    variant.name += "_" + what;
    for (const auto& [key, value] : members) variant.config.set(key, value);
    out.push_back(std::move(variant));
  };
  for (std::size_t i = 0; i < n_plain; ++i) {
    with(i, "tied", {{"tie_word_embeddings", true}});
    with(i, "window", {{"sliding_window", 24}, {"use_sliding_window", true}, {"max_window_layers", 1}});
  }
  const auto plain = [&](std::string_view type) {
    return static_cast<std::size_t>(std::ranges::find(out, type, &TinyVariant::name) - out.begin());
  };
  with(plain("stablelm"), "norms", {{"qk_layernorm", true}, {"use_parallel_residual", true}});
  with(plain("phi"), "norms", {{"qk_layernorm", true}});
  with(plain("opt"), "after", {{"do_layer_norm_before", false}, {"word_embed_proj_dim", 64}});
  with(plain("opt"), "bare", {{"_remove_final_layer_norm", true}});
  with(plain("ministral3"), "plain_rope",
       {{"rope_parameters", object({{"rope_type", "default"}, {"rope_theta", 10000.0}})}});
  with(0, "biases", {{"attention_bias", true}, {"mlp_bias", true}});
  with(0, "all_heads", {{"num_key_value_heads", 6}});
  with(0, "linear", {{"rope_scaling", object({{"type", "linear"}, {"factor", 4.0}})}});
  with(0, "yarn",
       {{"rope_scaling", object({{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 48}})}});
  with(0, "rope3",
       {{"rope_scaling", object({{"rope_type", "llama3"},
                                 {"factor", 8.0},
                                 {"low_freq_factor", 1.0},
                                 {"high_freq_factor", 4.0},
                                 {"original_max_position_embeddings", 64}})}});
  return out;
}

void write_tiny_model(const std::filesystem::path& folder, const json::Value& config, const TinyModelOptions& options) {
  std::filesystem::create_directories(folder);
  write_file_atomically(folder / "config.json", json::dump(config));
  if (options.tokenizer) write_tokenizer(folder);
  const model::ModelSpec spec = model::arch_by_model_type(config.get("model_type", "")).from_hf(config);
  const encoding::EncodingInfo& matrix = encoding::get(options.encoding);
  const encoding::EncodingInfo& vector = encoding::get("f32");
  std::vector<container::PlannedTensor> plan;
  std::vector<std::size_t> slots;
  for (std::size_t i = 0; i < spec.weights.size(); ++i) {
    const model::WeightSlot& slot = spec.weights[i];
    if (slot.hf_name.empty()) continue;
    if (!slot.hf_strides.empty() && i > 0 && spec.weights[i - 1].hf_name == slot.hf_name) continue;
    const Shape shape = model::file_shape(slot, false);
    const encoding::EncodingInfo& type = slot.shape.rank() == 1 ? vector : matrix;
    for (int part = 0; part < slot.hf_parts; ++part) {
      plan.push_back({model::hf_part_name(slot, part), &type, shape});
      slots.push_back(i);
    }
    if (slot.hf_parts > 0) continue;
    plan.push_back({slot.hf_name, &type, shape});
    slots.push_back(i);
  }
  const float norm_centre = spec.norm_add_one ? 0.0f : 1.0f;
  const auto writer = container::create_safetensors(folder / "model.safetensors", {}, plan);
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const std::vector<float> values =
        random_weight(spec.weights[slots[i]], plan[i].shape.elements(), norm_centre, options.seed, i);
    std::vector<std::byte> bytes(encoding::tensor_bytes(*plan[i].encoding, plan[i].shape));
    plan[i].encoding->encode(values.data(), bytes.data(), static_cast<std::int64_t>(values.size()));
    writer->write(i, 0, bytes);
  }
  writer->commit();
}

}  // namespace nibble::testing
