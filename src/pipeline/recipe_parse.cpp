// Recipes from JSON.
#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "json/json.h"
#include "pipeline/embedded.h"
#include "pipeline/recipe.h"
#include "pipeline/stock.h"

namespace nibble::pipeline {

namespace {

constexpr std::pair<TensorGroup, std::string_view> kGroups[] = {
    {TensorGroup::kOther, "other"},
    {TensorGroup::kTokenEmbedding, "token_embd"},
    {TensorGroup::kHead, "head"},
    {TensorGroup::kAttnQ, "attn_q"},
    {TensorGroup::kAttnK, "attn_k"},
    {TensorGroup::kAttnV, "attn_v"},
    {TensorGroup::kAttnOutput, "attn_output"},
    {TensorGroup::kFfnGate, "ffn_gate"},
    {TensorGroup::kFfnUp, "ffn_up"},
    {TensorGroup::kFfnDown, "ffn_down"},
};

TensorGroup parse_group(const std::string& name) {
  for (const auto& [group, text] : kGroups) {
    if (text == name) return group;
  }
  std::string known;
  for (const auto& [group, text] : kGroups) known += (known.empty() ? "" : ", ") + std::string(text);
  fail(ErrorCode::kInvalidArgument, "\"tensor\": unknown group '{}' (known: {})", name, known);
}

// A string, or an array of strings.
std::vector<std::string> words(const json::Value& value) {
  if (value.is_string()) return {value.as_string()};
  std::vector<std::string> result;
  for (const json::Value& item : value.as_array()) result.push_back(item.as_string());
  return result;
}

std::vector<const encoding::EncodingInfo*> types(const json::Value& value) {
  std::vector<const encoding::EncodingInfo*> result;
  for (const std::string& word : words(value)) result.push_back(&writable_encoding(word));
  return result;
}

void parse_layers(const std::string& text, Rule& rule) {
  const auto number = [&](std::string_view digits) {
    int value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size() || value <= 0) {
      fail(ErrorCode::kInvalidArgument,
           "\"layers\": '{}' is none of \"all\", \"first 4\", \"first n/8\", \"more_bits\"", text);
    }
    return value;
  };
  if (text == "all") {
    rule.layers = Rule::Layers::kAll;
  } else if (text == "more_bits") {
    rule.layers = Rule::Layers::kMoreBits;
  } else if (text.starts_with("first n/")) {
    rule.layers = Rule::Layers::kFirstShare;
    rule.layers_argument = number(std::string_view(text).substr(8));
  } else if (text.starts_with("first ")) {
    rule.layers = Rule::Layers::kFirst;
    rule.layers_argument = number(std::string_view(text).substr(6));
  } else {
    number("");
  }
}

using Setter = void (*)(const json::Value& value, Rule& rule);
constexpr std::pair<std::string_view, Setter> kSetters[] = {
    {"type", [](const json::Value& v, Rule& r) { r.type = &writable_encoding(v.as_string()); }},
    {"tensor",
     [](const json::Value& v, Rule& r) {
       for (const auto& w : words(v)) r.groups.push_back(parse_group(w));
     }},
    {"layers", [](const json::Value& v, Rule& r) { parse_layers(v.as_string(), r); }},
    {"gqa_min", [](const json::Value& v, Rule& r) { r.gqa_min = static_cast<int>(v.as_int()); }},
    {"imatrix", [](const json::Value& v, Rule& r) { r.imatrix = v.as_bool(); }},
    {"experts", [](const json::Value& v, Rule& r) { r.experts = static_cast<int>(v.as_int()); }},
    {"model_layers", [](const json::Value& v, Rule& r) { r.model_layers = static_cast<int>(v.as_int()); }},
    {"base_fits", [](const json::Value& v, Rule& r) { r.base_fits = v.as_bool(); }},
    {"arch", [](const json::Value& v, Rule& r) { r.arch = words(v); }},
    {"not_arch", [](const json::Value& v, Rule& r) { r.not_arch = words(v); }},
    {"base", [](const json::Value& v, Rule& r) { r.base = types(v); }},
    {"type_is", [](const json::Value& v, Rule& r) { r.type_is = types(v); }},
    {"match", [](const json::Value& v, Rule& r) { r.match.emplace(v.as_string()); }},
};

Rule parse_rule(const json::Value& value) {
  Rule rule;
  for (const auto& member : value.as_object()) {
    const auto* setter =
        std::find_if(std::begin(kSetters), std::end(kSetters), [&](const auto& s) { return s.first == member.first; });
    if (setter == std::end(kSetters)) fail(ErrorCode::kInvalidArgument, "unknown key \"{}\" in a rule", member.first);
    setter->second(member.second, rule);
  }
  if (rule.type == nullptr) fail(ErrorCode::kInvalidArgument, "a rule without \"type\"");
  return rule;
}

void append(std::vector<Rule>& to, const std::vector<Rule>& rules) { to.insert(to.end(), rules.begin(), rules.end()); }

}  // namespace

std::string_view group_name(TensorGroup group) {
  return std::find_if(std::begin(kGroups), std::end(kGroups), [&](const auto& g) { return g.first == group; })->second;
}

std::vector<Rule> parse_rules(const json::Value& value) {
  std::vector<Rule> rules;
  for (const json::Value& item : value.as_array()) {
    with_context(format_text("rule {}", rules.size() + 1), [&] { rules.push_back(parse_rule(item)); });
  }
  return rules;
}

Recipe parse_recipe(std::string_view name, const json::Value& value) {
  return with_context(format_text("recipe '{}'", name), [&] {
    constexpr std::string_view kKeys[] = {"about", "base", "file_type", "needs_imatrix", "stock", "rules"};
    for (const auto& [key, item] : value.as_object()) {
      if (std::find(std::begin(kKeys), std::end(kKeys), key) == std::end(kKeys)) {
        fail(ErrorCode::kInvalidArgument, "unknown key \"{}\"", key);
      }
    }
    Recipe recipe;
    recipe.name = name;
    recipe.about = value.get("about", "");
    recipe.base = &writable_encoding(value.at("base").as_string());
    if (const json::Value* type = value.find("file_type"))
      recipe.file_type = static_cast<std::uint32_t>(type->as_int());
    recipe.needs_imatrix = value.get("needs_imatrix", false);
    const bool with_stock = value.get("stock", true);
    if (with_stock) append(recipe.rules, stock().before);
    if (const json::Value* rules = value.find("rules")) append(recipe.rules, parse_rules(*rules));
    if (with_stock) append(recipe.rules, stock().after);
    return recipe;
  });
}

}  // namespace nibble::pipeline
