#include "model/hf_config.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"

namespace nibble::model {

namespace {

std::int64_t required_int(const json::Value& config, std::string_view key) {
  return with_context(format_text("config.json '{}'", key), [&] { return config.at(key).as_int(); });
}

int small_int(std::int64_t value) { return checked_cast<int>(value); }

std::vector<float> factor_list(const json::Value& rope, std::string_view key) {
  std::vector<float> factors;
  for (const json::Value& item : rope.at(key).as_array()) factors.push_back(static_cast<float>(item.as_number()));
  return factors;
}

// Attention factor of yarn's mscale pair, or 0 when the plain rule holds.
double yarn_attention_factor(const json::Value& rope, double factor) {
  const double explicit_factor = rope.get("attention_factor", 0.0);
  const double mscale = rope.get("mscale", 0.0);
  const double mscale_all = rope.get("mscale_all_dim", 0.0);
  if (explicit_factor != 0 || mscale == 0 || mscale_all == 0) return explicit_factor;
  const auto scaled = [factor](double m) { return factor <= 1 ? 1.0 : 0.1 * m * std::log(factor) + 1.0; };
  return scaled(mscale) / scaled(mscale_all);
}

void parse_scaling(const json::Value& rope, const json::Value& config, const ModelSpec& spec, RopeSpec& out) {
  const std::string type = rope.get("rope_type", rope.get("type", "default"));
  const std::int64_t original = config.get("original_max_position_embeddings", spec.context);
  out.original_context = rope.get("original_max_position_embeddings", original);
  const double derived = static_cast<double>(spec.context) / static_cast<double>(out.original_context);
  out.factor = rope.get("factor", type == "default" ? 1.0 : derived);
  if (type == "default" || type == "none") {
    out.scaling = RopeScaling::kNone;
    out.factor = 1;
  } else if (type == "linear") {
    out.scaling = RopeScaling::kLinear;
  } else if (type == "dynamic") {
    out.scaling = RopeScaling::kDynamic;
    out.original_context = spec.context;
  } else if (type == "yarn") {
    out.scaling = RopeScaling::kYarn;
    out.attention_factor = yarn_attention_factor(rope, out.factor);
    out.beta_fast = rope.get("beta_fast", 32.0);
    out.beta_slow = rope.get("beta_slow", 1.0);
    out.truncate = rope.get("truncate", true);
  } else if (type == "llama3") {
    out.scaling = RopeScaling::kLlama3;
    for (const char* key : {"low_freq_factor", "high_freq_factor"}) rope.at(key);  // required
    out.low_freq_factor = rope.get("low_freq_factor", 0.0);
    out.high_freq_factor = rope.get("high_freq_factor", 0.0);
  } else if (type == "longrope" || type == "su") {
    out.scaling = RopeScaling::kLongRope;
    out.attention_factor = rope.get("attention_factor", 0.0);
    out.factors = factor_list(rope, "short_factor");
    out.long_factors = factor_list(rope, "long_factor");
  } else {
    fail(ErrorCode::kUnsupported, "rope scaling '{}' is not known", type);
  }
}

RopeSpec parse_rope(const json::Value& rope, const json::Value& config, const HfDefaults& defaults,
                    const ModelSpec& spec) {
  RopeSpec out;
  out.theta = rope.get("rope_theta", config.get("rope_theta", defaults.theta));
  const double partial =
      rope.get("partial_rotary_factor", config.get("partial_rotary_factor", defaults.partial_rotary));
  if (!(partial >= 0 && partial <= 1)) fail(ErrorCode::kFormat, "partial_rotary_factor is {}", partial);
  out.dims = static_cast<int>(spec.blocks[0].head_dim * partial);
  parse_scaling(rope, config, spec, out);
  return out;
}

// One set of parameters for all layers, or one for each type of layer.
void parse_ropes(const json::Value& config, const HfDefaults& defaults, ModelSpec& spec) {
  const json::Value* rope = &rope_parameters(config);
  if (const json::Value* full = rope->find("full_attention")) {
    spec.local_rope = parse_rope(rope->at("sliding_attention"), config, defaults, spec);
    rope = full;
  }
  spec.rope = parse_rope(*rope, config, defaults, spec);
}

constexpr std::pair<std::string_view, Activation> kActivationNames[] = {
    {"silu", Activation::kSilu},         {"swish", Activation::kSilu},
    {"gelu", Activation::kGelu},         {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu_new", Activation::kGeluTanh}, {"gelu_fast", Activation::kGeluTanh},
    {"relu", Activation::kRelu},         {"relu2", Activation::kRelu2}};

}  // namespace

const json::Value& rope_parameters(const json::Value& config) {
  static const json::Value kNothing;
  for (const std::string_view key : {"rope_parameters", "rope_scaling"}) {
    const json::Value* rope = config.find(key);
    if (rope != nullptr && rope->is_object()) return *rope;
  }
  return kNothing;
}

Activation parse_activation(std::string_view name) {
  const auto found = std::ranges::find(kActivationNames, name, [](const auto& entry) { return entry.first; });
  if (found == std::end(kActivationNames)) fail(ErrorCode::kUnsupported, "activation '{}' is not known", name);
  return found->second;
}

std::string_view activation_name(Activation activation) {
  return std::ranges::find(kActivationNames, activation, [](const auto& entry) { return entry.second; })->first;
}

void require_flag(const json::Value& config, std::string_view key, bool value, bool fallback) {
  if (config.get(key, fallback) == value) return;
  fail(ErrorCode::kUnsupported, "config.json '{}' is {}: models of this kind are not known", key, !value);
}

// What no architecture has a default for.
constexpr std::string_view kNeeded[] = {"hidden_size", "num_hidden_layers", "num_attention_heads"};

json::Value with_usual_keys(const json::Value& config, std::span<const KeyAlias> aliases) {
  json::Value out = config;
  for (const KeyAlias& alias : aliases) {
    const json::Value* value = config.find(alias.own);
    const bool needed = std::ranges::find(kNeeded, alias.usual) != std::end(kNeeded);
    if (value == nullptr && needed && config.find(alias.usual) == nullptr) {
      fail(ErrorCode::kFormat, "config.json has neither '{}' nor '{}'", alias.own, alias.usual);
    }
    if (value == nullptr || value->is_null()) continue;
    const bool text = alias.usual == "hidden_act";  // the others are numbers; errors later on name the usual key
    if (text ? !value->is_string() : !value->is_number()) {
      fail(ErrorCode::kFormat, "config.json '{}' is no {}", alias.own, text ? "text" : "number");
    }
    out.set(alias.usual, *value);
  }
  return out;
}

json::Value with_own_keys(const json::Value& config, std::span<const KeyAlias> aliases) {
  json::Value out;
  for (const auto& [key, value] : config.as_object()) {
    const auto alias = std::ranges::find(aliases, key, &KeyAlias::usual);
    out.set(alias == aliases.end() ? std::string_view(key) : alias->own, value);
  }
  return out;
}

ModelSpec decoder_from_hf(const json::Value& config, const HfDefaults& defaults) {
  ModelSpec spec;
  spec.hidden = required_int(config, "hidden_size");
  const auto number = [&](std::string_view key, std::int64_t fallback) {
    return fallback > 0 && config.find(key) == nullptr ? fallback : required_int(config, key);
  };
  spec.vocab = number("vocab_size", defaults.vocab);
  spec.context = config.get("max_position_embeddings", defaults.context);
  spec.norm_eps = config.get("rms_norm_eps", defaults.norm_eps);
  spec.tied = config.get("tie_word_embeddings", defaults.tied);

  BlockSpec block;
  block.activation = parse_activation(config.get("hidden_act", defaults.activation));
  block.n_heads = small_int(number("num_attention_heads", defaults.heads));
  if (block.n_heads <= 0) fail(ErrorCode::kFormat, "number of attention heads is {}", block.n_heads);
  const int kv_default = defaults.kv_heads > 0 ? defaults.kv_heads : block.n_heads;
  block.n_kv_heads = defaults.grouped ? small_int(config.get("num_key_value_heads", kv_default)) : block.n_heads;
  const bool derived = !defaults.grouped || (defaults.head_dim == 0 && config.find("head_dim") == nullptr);
  if (derived && spec.hidden % block.n_heads != 0) {
    fail(ErrorCode::kFormat, "hidden size {} is no multiple of {} attention heads", spec.hidden, block.n_heads);
  }
  const std::int64_t head_default = defaults.head_dim > 0 ? defaults.head_dim : spec.hidden / block.n_heads;
  block.head_dim = small_int(derived ? head_default : config.get("head_dim", head_default));
  const bool own_ffn = defaults.ffn_per_hidden == 0 || config.find("intermediate_size") != nullptr;
  block.ffn = own_ffn ? required_int(config, "intermediate_size") : defaults.ffn_per_hidden * spec.hidden;
  const std::int64_t n_layers = required_int(config, "num_hidden_layers");
  if (n_layers < 1 || n_layers > (1 << 10)) fail(ErrorCode::kFormat, "number of layers is {}", n_layers);
  spec.blocks.assign(static_cast<std::size_t>(n_layers), block);
  with_context("config.json rope parameters", [&] { parse_ropes(config, defaults, spec); });
  return spec;
}

std::vector<bool> layers_of_type(const ModelSpec& spec, const json::Value& config, std::string_view type,
                                 bool (*fallback)(std::int64_t layer)) {
  const json::Value* types = config.find("layer_types");
  const bool named = types != nullptr && types->is_array();
  if (named && types->as_array().size() != spec.blocks.size()) {
    fail(ErrorCode::kFormat, "config.json 'layer_types' has {} entries for {} layers", types->as_array().size(),
         spec.blocks.size());
  }
  std::vector<bool> is(spec.blocks.size());
  for (std::size_t i = 0; i < is.size(); ++i) {
    is[i] = named ? types->as_array()[i].as_string() == type : fallback(static_cast<std::int64_t>(i));
  }
  return is;
}

std::int64_t window_from(const json::Value& config, std::int64_t absent) {
  const json::Value* window = config.find("sliding_window");
  return window == nullptr ? absent : window->is_null() ? 0 : required_int(config, "sliding_window");
}

std::vector<bool> layers_by_period(const ModelSpec& spec, const json::Value& config, std::int64_t period) {
  const std::int64_t given = config.get("sliding_window_pattern", period);
  if (given < 1) fail(ErrorCode::kFormat, "config.json 'sliding_window_pattern' is {}", given);
  const json::Value* types = config.find("layer_types");
  const bool named = types != nullptr && types->is_array();
  std::vector<bool> sliding = layers_of_type(spec, config, "sliding_attention", [](std::int64_t) { return true; });
  for (std::size_t i = 0; i < sliding.size() && !named; ++i) {
    sliding[i] = (static_cast<std::int64_t>(i) + 1) % given != 0;
  }
  return sliding;
}

void apply_layer_windows(ModelSpec& spec, const json::Value& config, std::int64_t default_window,
                         bool (*slides)(std::int64_t layer, std::int64_t limit)) {
  if (!config.get("use_sliding_window", false)) return;
  const std::int64_t window = config.get("sliding_window", default_window);
  const json::Value* types = config.find("layer_types");
  const bool named = types != nullptr && types->is_array();
  const std::vector<bool> sliding =
      layers_of_type(spec, config, "sliding_attention", [](std::int64_t) { return true; });
  const std::int64_t limit = named ? 0 : config.get("max_window_layers", 28);
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    if (named ? sliding[i] : slides(static_cast<std::int64_t>(i), limit)) spec.blocks[i].window = window;
  }
}

}  // namespace nibble::model
