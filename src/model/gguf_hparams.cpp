#include "model/gguf_hparams.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "model/experts.h"
#include "model/rope.h"

namespace nibble::model {

namespace {

using container::Metadata;

// An `<arch>.` key, read with a fallback or written.
class Keys {
 public:
  explicit Keys(std::string_view arch) : prefix_(std::string(arch) + ".") {}
  std::string operator()(std::string_view key) const { return prefix_ + std::string(key); }

 private:
  std::string prefix_;
};

// A value per layer: a scalar counts for all.
std::vector<std::int64_t> per_layer(const Metadata& metadata, const std::string& key, std::size_t n_layers) {
  std::vector<std::int64_t> values = metadata.get_ints(key);
  if (values.size() == 1) values.resize(n_layers, values[0]);
  if (values.size() != n_layers) {
    fail(ErrorCode::kFormat, "key '{}' has {} values for {} layers", key, values.size(), n_layers);
  }
  return values;
}

// llama.cpp multiplies cos and sin of a yarn model by attn_factor * (1 + 0.1 ln factor).
double yarn_default(double factor) { return factor <= 1 ? 1.0 : 0.1 * std::log(factor) + 1.0; }

void read_rope(const Metadata& metadata, const Keys& key, int head_dim, ModelSpec& spec) {
  RopeSpec& rope = spec.rope;
  rope.dims = checked_cast<int>(metadata.get_int(key("rope.dimension_count"), head_dim));
  rope.theta = metadata.get_float(key("rope.freq_base"), 10000.0);
  rope.original_context = metadata.get_int(key("rope.scaling.original_context_length"), spec.context);
  const std::string type = metadata.get_string(key("rope.scaling.type"), "linear");
  const double factor =
      metadata.get_float(key("rope.scaling.factor"), metadata.get_float(key("rope.scale_linear"), 0.0));
  rope.factor = factor == 0 ? 1.0 : factor;
  const std::string attn = key("rope.scaling.attn_factor");
  if (type == "none" || type == "longrope" || (type == "linear" && rope.factor == 1)) {
    rope.scaling = RopeScaling::kNone;  // long and short factors among the tensors make it longrope
    rope.factor = 1;
    rope.attention_factor = metadata.get_float(attn, 0.0);
  } else if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
  } else if (type == "yarn") {
    rope.scaling = RopeScaling::kYarn;
    if (metadata.contains(attn)) rope.attention_factor = metadata.get_float(attn) * yarn_default(rope.factor);
    rope.beta_fast = metadata.get_float(key("rope.scaling.yarn_beta_fast"), 32.0);
    rope.beta_slow = metadata.get_float(key("rope.scaling.yarn_beta_slow"), 1.0);
  } else {
    fail(ErrorCode::kUnsupported, "key '{}': rope scaling '{}' is not known", key("rope.scaling.type"), type);
  }
}

void write_rope(const ModelSpec& spec, const Keys& key, Metadata& metadata) {
  const RopeSpec& rope = spec.rope;
  metadata.set(key("rope.dimension_count"), static_cast<std::uint32_t>(rope.dims));
  metadata.set(key("rope.freq_base"), static_cast<float>(rope.theta));
  // llama3 travels as the tensor of factors; dynamic scaling changes nothing up to the trained context and has no key.
  if (rope.scaling == RopeScaling::kLinear) {
    metadata.set(key("rope.scaling.type"), std::string("linear"));
    metadata.set(key("rope.scaling.factor"), static_cast<float>(rope.factor));
  } else if (rope.scaling == RopeScaling::kYarn) {
    metadata.set(key("rope.scaling.type"), std::string("yarn"));
    metadata.set(key("rope.scaling.factor"), static_cast<float>(rope.factor));
    metadata.set(key("rope.scaling.original_context_length"), checked_cast<std::uint32_t>(rope.original_context));
    if (rope.attention_factor != 0) {
      metadata.set(key("rope.scaling.attn_factor"),
                   static_cast<float>(rope.attention_factor / yarn_default(rope.factor)));
    }
    metadata.set(key("rope.scaling.yarn_beta_fast"), static_cast<float>(rope.beta_fast));
    metadata.set(key("rope.scaling.yarn_beta_slow"), static_cast<float>(rope.beta_slow));
  } else if (rope.scaling == RopeScaling::kLongRope) {
    // The factors are tensors; the scaling of cos and sin does not follow from keys.
    metadata.set(key("rope.scaling.original_context_length"), checked_cast<std::uint32_t>(rope.original_context));
    metadata.set(key("rope.scaling.attn_factor"), rope_frequencies(rope, 1).attention_factor);
  }
}

// One number when all layers agree, else an array.
template <typename Get>
void write_per_layer(Metadata& metadata, const std::string& key, const ModelSpec& spec, Get&& get) {
  std::vector<std::uint32_t> values;
  for (const BlockSpec& block : spec.blocks) values.push_back(checked_cast<std::uint32_t>(get(block)));
  if (std::ranges::count(values, values[0]) == static_cast<std::ptrdiff_t>(values.size())) {
    metadata.set(key, values[0]);
  } else {
    metadata.set(key, container::MetaArray{std::move(values)});
  }
}

std::string_view norm_key(NormKind norm) {
  return norm == NormKind::kRms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon";
}

struct ScaleKey {
  std::string_view key;
  double ModelSpec::*value;
};
constexpr ScaleKey kScaleKeys[] = {
    {"embedding_scale", &ModelSpec::embedding_scale}, {"residual_scale", &ModelSpec::residual_scale},
    {"attention.scale", &ModelSpec::attention_scale}, {"attn_logit_softcapping", &ModelSpec::attention_softcap},
    {"logit_scale", &ModelSpec::logit_scale},         {"final_logit_softcapping", &ModelSpec::logit_softcap}};

std::int64_t vocabulary_size(const Metadata& metadata, const Keys& key) {
  if (metadata.contains(key("vocab_size"))) return metadata.get_int(key("vocab_size"));
  if (metadata.contains("tokenizer.ggml.tokens")) {
    return static_cast<std::int64_t>(metadata.get_strings("tokenizer.ggml.tokens").size());
  }
  return metadata.get_int(key("vocab_size"));  // names the missing key
}

}  // namespace

std::string arch_key(const ModelSpec& spec, std::string_view key) { return Keys(spec.arch)(key); }

ModelSpec decoder_from_gguf(const Metadata& metadata, std::string_view arch, NormKind norm) {
  const Keys key(arch);
  ModelSpec spec;
  spec.arch = arch;
  spec.name = metadata.get_string("general.name", "");
  spec.hidden = metadata.get_int(key("embedding_length"));
  spec.context = metadata.get_int(key("context_length"));
  spec.vocab = vocabulary_size(metadata, key);
  spec.norm = norm;
  spec.norm_eps = metadata.get_float(key(norm_key(norm)));
  const std::int64_t n_layers = metadata.get_int(key("block_count"));
  if (n_layers < 1 || n_layers > (1 << 10)) fail(ErrorCode::kFormat, "number of layers is {}", n_layers);
  const auto count = static_cast<std::size_t>(n_layers);
  const auto heads = per_layer(metadata, key("attention.head_count"), count);
  const std::string kv_key = key("attention.head_count_kv");
  const auto kv_heads = metadata.contains(kv_key) ? per_layer(metadata, kv_key, count) : heads;
  const auto ffn = per_layer(metadata, key("feed_forward_length"), count);
  const std::string window_key = key("attention.sliding_window");
  const auto windows =
      metadata.contains(window_key) ? per_layer(metadata, window_key, count) : std::vector<std::int64_t>(count);
  for (std::size_t i = 0; i < count; ++i) {
    BlockSpec block;
    block.n_heads = checked_cast<int>(heads[i]);
    if (block.n_heads <= 0) fail(ErrorCode::kFormat, "number of attention heads is {}", block.n_heads);
    block.n_kv_heads = checked_cast<int>(kv_heads[i]);
    block.head_dim = checked_cast<int>(metadata.get_int(key("attention.key_length"), spec.hidden / block.n_heads));
    const bool latent = metadata.contains(key("attention.kv_lora_rank"));
    if (!latent && metadata.get_int(key("attention.value_length"), block.head_dim) != block.head_dim) {
      fail(ErrorCode::kUnsupported, "key '{}' differs from the key length", key("attention.value_length"));
    }
    block.ffn = ffn[i];
    block.window = windows[i];
    spec.blocks.push_back(block);
  }
  read_rope(metadata, key, spec.blocks[0].head_dim, spec);
  experts_from_gguf(metadata, spec);
  return spec;
}

void decoder_to_gguf(const ModelSpec& spec, Metadata& metadata) {
  const Keys key(spec.arch);
  metadata.set(key("context_length"), checked_cast<std::uint32_t>(spec.context));
  metadata.set(key("embedding_length"), checked_cast<std::uint32_t>(spec.hidden));
  metadata.set(key("block_count"), checked_cast<std::uint32_t>(spec.n_layers()));
  write_per_layer(metadata, key("feed_forward_length"), spec, [](const BlockSpec& b) { return b.ffn; });
  write_per_layer(metadata, key("attention.head_count"), spec, [](const BlockSpec& b) { return b.n_heads; });
  write_per_layer(metadata, key("attention.head_count_kv"), spec, [](const BlockSpec& b) { return b.n_kv_heads; });
  const auto head_dim = static_cast<std::uint32_t>(spec.blocks[0].head_dim);
  metadata.set(key("attention.key_length"), head_dim);
  metadata.set(key("attention.value_length"), head_dim);
  metadata.set(key(norm_key(spec.norm)), static_cast<float>(spec.norm_eps));
  metadata.set(key("vocab_size"), checked_cast<std::uint32_t>(spec.vocab));
  if (std::ranges::any_of(spec.blocks, [](const BlockSpec& b) { return b.window > 0; })) {
    write_per_layer(metadata, key("attention.sliding_window"), spec, [](const BlockSpec& b) { return b.window; });
  }
  if (spec.positions == Positions::kRotary) write_rope(spec, key, metadata);
  experts_to_gguf(spec, metadata);
}

namespace {

// Numbers or switches; one for all stands alone.
std::vector<std::int64_t> window_pattern(const Metadata& metadata, const std::string& key, std::int64_t fallback) {
  const container::MetaValue* value = metadata.find(key);
  if (value == nullptr) return {fallback};
  if (const auto* array = std::get_if<container::MetaArray>(value)) {
    if (const auto* flags = std::get_if<std::vector<bool>>(&array->items)) return {flags->begin(), flags->end()};
  }
  return metadata.get_ints(key);
}

}  // namespace

void windows_from_gguf(const Metadata& metadata, std::int64_t default_period, ModelSpec& spec) {
  const std::string key = arch_key(spec, "attention.sliding_window_pattern");
  const std::vector<std::int64_t> pattern = window_pattern(metadata, key, default_period);
  const bool by_layer = pattern.size() == spec.blocks.size() && pattern.size() > 1;
  if (!by_layer && (pattern.size() != 1 || pattern[0] < 1)) {
    fail(ErrorCode::kFormat, "key '{}' is no pattern for {} layers", key, spec.blocks.size());
  }
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    const bool sliding = by_layer ? pattern[i] != 0 : (static_cast<std::int64_t>(i) + 1) % pattern[0] != 0;
    if (!sliding) spec.blocks[i].window = 0;
  }
}

void windows_to_gguf(const ModelSpec& spec, std::int64_t default_period, Metadata& metadata) {
  std::int64_t window = 0;
  std::vector<bool> sliding;
  bool usual = true;
  for (const BlockSpec& block : spec.blocks) {
    if (block.window != 0 && window != 0 && block.window != window) {
      fail(ErrorCode::kUnsupported, "windows of different sizes have no form in a GGUF file of '{}'", spec.arch);
    }
    if (block.window != 0) window = block.window;
    sliding.push_back(block.window != 0);
    usual = usual && default_period > 0 &&
            sliding.back() == (static_cast<std::int64_t>(sliding.size()) % default_period != 0);
  }
  metadata.erase(arch_key(spec, "attention.sliding_window"));
  if (window == 0) return;
  metadata.set(arch_key(spec, "attention.sliding_window"), checked_cast<std::uint32_t>(window));
  if (std::ranges::any_of(spec.blocks, [](const BlockSpec& block) { return block.rope == BlockRope::kLocal; })) {
    metadata.set(arch_key(spec, "rope.freq_base_swa"), static_cast<float>(spec.local_rope.theta));
  }
  if (!usual)
    metadata.set(arch_key(spec, "attention.sliding_window_pattern"), container::MetaArray{std::move(sliding)});
}

void scales_from_gguf(const Metadata& metadata, ModelSpec& spec) {
  for (const ScaleKey& scale : kScaleKeys) {
    spec.*scale.value = metadata.get_float(arch_key(spec, scale.key), spec.*scale.value);
  }
}

void scales_to_gguf(const ModelSpec& spec, Metadata& metadata) {
  const ModelSpec plain;
  for (const ScaleKey& scale : kScaleKeys) {
    if (spec.*scale.value == plain.*scale.value) continue;
    metadata.set(arch_key(spec, scale.key), static_cast<float>(spec.*scale.value));
  }
}

}  // namespace nibble::model
