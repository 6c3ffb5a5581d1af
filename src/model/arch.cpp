#include "model/arch.h"

#include <algorithm>

#include "base/error.h"

namespace nibble::model {

namespace {

// "a, b, c" without repeats, for messages.
template <typename Names>
std::string known(Names&& names_of) {
  std::string list;
  std::vector<std::string_view> seen;
  for (const Arch* arch : all_entries()) {
    for (const std::string_view name : names_of(*arch)) {
      if (std::ranges::find(seen, name) != seen.end()) continue;
      seen.push_back(name);
      list += (list.empty() ? "" : ", ") + std::string(name);
    }
  }
  return list;
}

// The entry that a name belongs to where no other claims the file.
const Arch& arch_by_name(std::string_view name) {
  for (const Arch* arch : all_entries()) {
    if (arch->name == name && arch->claims == nullptr) return *arch;
  }
  fail(ErrorCode::kUnsupported, "architecture '{}' is not known; known are: {}", name,
       known([](const Arch& arch) { return std::span(&arch.name, 1); }));
}

}  // namespace

const Arch& arch_of(const ModelSpec& spec) {
  for (const Arch* arch : all_entries()) {
    if (arch->name == spec.arch && arch->claims != nullptr && arch->claims(spec)) return *arch;
  }
  return arch_by_name(spec.arch);
}

ModelSpec spec_from_gguf(const container::Metadata& metadata) {
  const Arch& usual = arch_by_name(metadata.get_string("general.architecture"));
  ModelSpec spec = usual.from_gguf(metadata);
  const Arch& own = arch_of(spec);
  return &own == &usual ? spec : own.from_gguf(metadata);
}

namespace {

bool has(std::span<const std::string_view> names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

}  // namespace

json::Value text_config(const json::Value& config) {
  const std::string type = config.get("model_type", "");
  if (type.empty()) fail(ErrorCode::kFormat, "config.json names no 'model_type'");
  if (std::ranges::none_of(all_entries(), [&](const Arch* arch) { return has(arch->hf_larger_types, type); })) {
    return config;
  }
  const json::Value* text = config.find("text_config");
  if (text == nullptr || !text->is_object()) {
    fail(ErrorCode::kFormat, "config.json of model type '{}' has no 'text_config'", type);
  }
  const std::string inner = text->get("model_type", "");
  if (inner.empty()) fail(ErrorCode::kFormat, "config.json 'text_config' names no 'model_type'");
  if (!has(arch_by_model_type(inner).hf_larger_types, type)) {
    fail(ErrorCode::kUnsupported, "a '{}' with a text model of type '{}' is not known", type, inner);
  }
  json::Value out = *text;
  const json::Value* tied = config.find("tie_word_embeddings");
  if (tied != nullptr && text->find("tie_word_embeddings") == nullptr) out.set("tie_word_embeddings", *tied);
  return out;
}

const Arch& arch_by_model_type(std::string_view hf_model_type) {
  for (const Arch* arch : all_entries()) {
    if (has(arch->hf_model_types, hf_model_type)) return *arch;
  }
  fail(ErrorCode::kUnsupported, "model type '{}' is not known; known are: {}", hf_model_type,
       known([](const Arch& arch) { return arch.hf_model_types; }));
}

namespace {

void check_same(std::string_view what, const auto& ours, const auto& read, std::string_view arch) {
  if (ours == read) return;
  fail(ErrorCode::kUnsupported, "this model's {} has no form in a GGUF file of architecture '{}'", what, arch);
}

ExpertSpec without_scale(ExpertSpec experts) {
  experts.scale = 1;
  return experts;
}

void check_scale(std::string_view what, double ours, double read, std::string_view arch) {
  check_same(what, static_cast<float>(ours), static_cast<float>(read), arch);
}

}  // namespace

void write_gguf_keys(const ModelSpec& spec, container::Metadata& metadata) {
  const Arch& arch = arch_of(spec);
  arch.to_gguf(spec, metadata);
  const ModelSpec read = arch.from_gguf(metadata);
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    const BlockSpec &ours = spec.blocks[i], &other = read.blocks.at(i);
    check_same("activation", ours.activation, other.activation, spec.arch);
    check_same("feed-forward", std::pair(ours.gated, ours.ffn), std::pair(other.gated, other.ffn), spec.arch);
    check_same("pattern of windows", std::pair(ours.window, ours.chunked), std::pair(other.window, other.chunked),
               spec.arch);
    check_same("choice of rotated blocks", ours.rope, other.rope, spec.arch);
    const WeightSlot* norm = read.find(Role::kAttnQNorm, static_cast<int>(i));
    if (norm == nullptr || !norm->optional) check_same("norm of queries", ours.qk_norm, other.qk_norm, spec.arch);
    check_same("latent attention", ours.latent, other.latent, spec.arch);
    check_same("mixture of experts", without_scale(ours.experts), without_scale(other.experts), spec.arch);
    check_scale("scale of experts", ours.experts.scale, other.experts.scale, spec.arch);
    check_same("residual", ours.parallel, other.parallel, spec.arch);
  }
  if (spec.rope.scaling == RopeScaling::kYarn)
    check_same("yarn ramp", spec.rope.truncate, read.rope.truncate, spec.arch);
  check_scale("norm epsilon", spec.norm_eps, read.norm_eps, spec.arch);
  check_scale("embedding scale", spec.embedding_scale, read.embedding_scale, spec.arch);
  check_scale("residual scale", spec.residual_scale, read.residual_scale, spec.arch);
  check_scale("attention scale", spec.attention_scale, read.attention_scale, spec.arch);
  check_scale("attention soft cap", spec.attention_softcap, read.attention_softcap, spec.arch);
  check_scale("attention temperature", spec.temperature_scale, read.temperature_scale, spec.arch);
  check_same("attention temperature's span", spec.temperature_span, read.temperature_span, spec.arch);
  check_scale("logit scale", 1 / spec.logit_scale, 1 / read.logit_scale, spec.arch);
  check_scale("logit soft cap", spec.logit_softcap, read.logit_softcap, spec.arch);
}

}  // namespace nibble::model
