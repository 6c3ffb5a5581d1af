#include "model/hf_export.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/hf_config.h"
#include "model/rope.h"

namespace nibble::model {

namespace {

bool same_sizes(const BlockSpec& a, const BlockSpec& b) {
  return a.n_heads == b.n_heads && a.n_kv_heads == b.n_kv_heads && a.head_dim == b.head_dim && a.ffn == b.ffn;
}

// GGUF keeps llama3 scaling as divisors only. The parameters behind them: Llama 3's own but for the factor, which is
// the largest divisor; they are right when they give the divisors again.
RopeSpec llama3_behind(const RopeSpec& rope) {
  RopeSpec guess = rope;
  guess.factors.clear();
  guess.scaling = RopeScaling::kLlama3;
  guess.factor = static_cast<double>(*std::max_element(rope.factors.begin(), rope.factors.end()));
  guess.low_freq_factor = 1;
  guess.high_freq_factor = 4;
  guess.original_context = 8192;
  const std::vector<float> factors = rope_factors(guess);
  const bool same = std::equal(factors.begin(), factors.end(), rope.factors.begin(), rope.factors.end(),
                               [](float a, float b) { return std::abs(a - b) <= 1e-5f * std::abs(b); });
  if (!same) fail(ErrorCode::kUnsupported, "the rope factors of this file have no form in config.json");
  return guess;
}

// GGUF holds numbers in f32: 1e-5 comes back as 9.99999974e-06. The shortest decimal that is the same f32 is meant.
double plain(double value) { return std::stod(format_text("{}", static_cast<float>(value))); }

json::Array numbers(const std::vector<float>& values) {
  json::Array out;
  for (const float value : values) out.emplace_back(plain(static_cast<double>(value)));
  return out;
}

json::Value scaling_json(const RopeSpec& given) {
  const bool factors_only = !given.factors.empty() && given.scaling == RopeScaling::kNone;
  const RopeSpec rope = factors_only ? llama3_behind(given) : given;
  json::Value value;
  switch (rope.scaling) {
    case RopeScaling::kNone:
      return value;
    case RopeScaling::kLinear:
      value.set("rope_type", "linear");
      break;
    case RopeScaling::kDynamic:
      value.set("rope_type", "dynamic");
      break;
    case RopeScaling::kYarn:
      value.set("rope_type", "yarn");
      value.set("original_max_position_embeddings", rope.original_context);
      if (rope.attention_factor != 0) value.set("attention_factor", rope.attention_factor);
      value.set("beta_fast", rope.beta_fast);
      value.set("beta_slow", rope.beta_slow);
      if (!rope.truncate) value.set("truncate", false);
      break;
    case RopeScaling::kLlama3:
      value.set("rope_type", "llama3");
      value.set("low_freq_factor", rope.low_freq_factor);
      value.set("high_freq_factor", rope.high_freq_factor);
      value.set("original_max_position_embeddings", rope.original_context);
      break;
    case RopeScaling::kLongRope:
      value.set("rope_type", "longrope");
      value.set("short_factor", numbers(rope.factors));
      value.set("long_factor", numbers(rope.long_factors));
      value.set("original_max_position_embeddings", rope.original_context);
      if (rope.attention_factor != 0) value.set("attention_factor", plain(rope.attention_factor));
      break;
  }
  value.set("factor", rope.factor);
  return value;
}

}  // namespace

json::Value decoder_to_hf(const ModelSpec& spec, std::string_view model_type, std::string_view class_name) {
  const BlockSpec& block = spec.blocks.at(0);
  for (const BlockSpec& other : spec.blocks) {
    if (!same_sizes(block, other))
      fail(ErrorCode::kUnsupported, "layers of different sizes have no form in config.json");
  }
  json::Value config;
  config.set("architectures", json::Array{class_name});
  config.set("model_type", model_type);
  config.set("hidden_size", spec.hidden);
  config.set("intermediate_size", block.ffn);
  config.set("num_hidden_layers", spec.n_layers());
  config.set("num_attention_heads", block.n_heads);
  config.set("num_key_value_heads", block.n_kv_heads);
  config.set("head_dim", block.head_dim);
  config.set("vocab_size", spec.vocab);
  config.set("max_position_embeddings", spec.context);
  config.set("rms_norm_eps", plain(spec.norm_eps));
  config.set("rope_theta", plain(spec.rope.theta));
  if (spec.rope.dims != block.head_dim) {
    config.set("partial_rotary_factor", static_cast<double>(spec.rope.dims) / block.head_dim);
  }
  const json::Value scaling = scaling_json(spec.rope);
  if (!scaling.is_null()) config.set("rope_scaling", scaling);
  config.set("hidden_act", activation_name(block.activation));
  config.set("tie_word_embeddings", spec.tied);
  return config;
}

void add_layer_windows(const ModelSpec& spec, json::Value& config) {
  std::int64_t window = 0;
  json::Array types;
  for (const BlockSpec& block : spec.blocks) {
    if (block.window != 0 && window != 0 && block.window != window) {
      fail(ErrorCode::kUnsupported, "windows of different sizes have no form in config.json");
    }
    if (block.window != 0) window = block.window;
    types.emplace_back(block.window != 0 ? "sliding_attention" : "full_attention");
  }
  config.set("use_sliding_window", window != 0);
  if (window == 0) return;
  config.set("sliding_window", window);
  config.set("layer_types", std::move(types));
}

}  // namespace nibble::model
