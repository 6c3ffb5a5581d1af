#include "pipeline/recipe.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <numeric>

#include "base/error.h"
#include "base/near_names.h"
#include "container/gguf/types.h"
#include "pipeline/embedded.h"
#include "pipeline/stock.h"

namespace nibble::pipeline {

namespace {

constexpr std::string_view kStock = "stock";  // no recipe, but what they share

template <typename T>
bool allows(const std::vector<T>& allowed, const T& value) {
  return allowed.empty() || std::find(allowed.begin(), allowed.end(), value) != allowed.end();
}

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// Where a tensor stands among those of its group: number `index` of `count`.
struct Place {
  TensorGroup group{};
  int index = 0;
  int count = 0;
};

std::vector<Place> place_tensors(const ModelFacts& facts, std::span<const RecipeTensor> tensors) {
  const bool tied =
      std::none_of(tensors.begin(), tensors.end(), [](const auto& t) { return t.name == "output.weight"; });
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(layer_of(tensors[a].name), std::string_view(tensors[a].name)) <
           std::pair(layer_of(tensors[b].name), std::string_view(tensors[b].name));
  });
  std::vector<Place> places(tensors.size());
  std::map<TensorGroup, int> seen;
  for (const std::size_t i : order) {
    Place& place = places[i];
    place.group = group_of(tensors[i].name, tied);
    if (!may_quantize(tensors[i])) continue;
    place.index = seen[place.group]++;
    const bool is_ffn = place.group == TensorGroup::kFfnDown || place.group == TensorGroup::kFfnUp ||
                        place.group == TensorGroup::kFfnGate;
    if (is_ffn && facts.n_experts > 1) place.index = layer_of(tensors[i].name);  // experts repeat within a layer
  }
  for (Place& place : places) place.count = place.group == TensorGroup::kAttnV ? seen[place.group] : facts.n_layers;
  return places;
}

bool layer_applies(const Rule& rule, const Place& place) {
  const int i = place.index;
  const int n = place.count;
  switch (rule.layers) {
    case Rule::Layers::kAll:
      return true;
    case Rule::Layers::kFirst:
      return i < rule.layers_argument;
    case Rule::Layers::kFirstShare:
      return i < n / rule.layers_argument;
    case Rule::Layers::kMoreBits:
      return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
  }
  return false;
}

bool divides(const encoding::EncodingInfo& type, const Shape& shape) { return shape.cols() % type.block_elements == 0; }

bool applies(const Rule& rule, const Recipe& recipe, const ModelFacts& facts, const RecipeTensor& tensor,
             const Place& place, const encoding::EncodingInfo* type) {
  return allows(rule.groups, place.group) && layer_applies(rule, place) && facts.gqa >= rule.gqa_min &&
         (!rule.imatrix || *rule.imatrix == facts.has_imatrix) && (!rule.experts || *rule.experts == facts.n_experts) &&
         (!rule.model_layers || *rule.model_layers == facts.n_layers) &&
         (!rule.base_fits || *rule.base_fits == divides(*recipe.base, tensor.shape)) && allows(rule.arch, facts.arch) &&
         (rule.not_arch.empty() || !allows(rule.not_arch, facts.arch)) && allows(rule.base, recipe.base) &&
         allows(rule.type_is, type) &&
         (!rule.match || rule.match->found_in(tensor.name) ||
          (!tensor.hf_name.empty() && rule.match->found_in(tensor.hf_name)));
}

Choice fitted(const encoding::EncodingInfo& wanted, const Shape& shape) {
  const encoding::EncodingInfo& type = fitting_type(wanted, shape);
  return {&type, &type == &wanted ? nullptr : &wanted};
}

[[noreturn]] void fail_unknown_type(std::string_view name) {
  std::vector<std::string_view> known;
  std::string all;
  for (const EmbeddedFile& file : embedded_recipes()) {
    if (file.name == kStock) continue;
    known.push_back(file.name);
    all += format_text(" {}", file.name);
  }
  fail(ErrorCode::kInvalidArgument,
       "unknown type '{}'; near ones: {}; recipes:{}; or an encoding's name, or a recipe file (.json)", name,
       near_names(name, known), all);
}

}  // namespace

int layer_of(std::string_view name) {
  if (!name.starts_with("blk.")) return -1;
  int layer = -1;
  const auto [end, error] = std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return error == std::errc() && end != name.data() + name.size() && *end == '.' ? layer : -1;
}

TensorGroup group_of(std::string_view name, bool tied) {
  if (name == "output.weight") return TensorGroup::kHead;
  if (name == "token_embd.weight" || name == "per_layer_token_embd.weight") {
    return tied ? TensorGroup::kHead : TensorGroup::kTokenEmbedding;
  }
  constexpr std::pair<std::string_view, TensorGroup> kParts[] = {
      {"attn_qkv.weight", TensorGroup::kAttnV}, {"attn_kv_b.weight", TensorGroup::kAttnV},
      {"attn_v.weight", TensorGroup::kAttnV},   {"attn_k.weight", TensorGroup::kAttnK},
      {"attn_q.weight", TensorGroup::kAttnQ},   {"attn_output.weight", TensorGroup::kAttnOutput},
      {"ffn_up", TensorGroup::kFfnUp},          {"ffn_gate", TensorGroup::kFfnGate},
      {"ffn_down", TensorGroup::kFfnDown},
  };
  for (const auto& [part, group] : kParts) {
    if (contains(name, part)) return group;
  }
  return TensorGroup::kOther;
}

const Stock& stock() {
  static const Stock parsed = [] {
    const auto files = embedded_recipes();
    const auto file = std::find_if(files.begin(), files.end(), [](const EmbeddedFile& f) { return f.name == kStock; });
    const json::Value value = json::parse(file->text);
    Stock result;
    result.before = parse_rules(value.at("before"));
    result.after = parse_rules(value.at("after"));
    for (const auto& [from, to] : value.at("fallbacks").as_object()) {
      result.fallbacks.emplace_back(&writable_encoding(from), &writable_encoding(to.as_string()));
    }
    result.last_fallback = &writable_encoding(value.at("last_fallback").as_string());
    for (const json::Value& part : value.at("never").as_array()) result.never.push_back(part.as_string());
    return result;
  }();
  return parsed;
}

const encoding::EncodingInfo& writable_encoding(std::string_view name) {
  const encoding::EncodingInfo& type = encoding::get(name);
  if (!container::gguf::type_id(type)) fail(ErrorCode::kUnsupported, "type '{}' has no form in a GGUF file", type.name);
  const bool weights = type.family == encoding::Family::kBlock || dtype_is_float(type.dtype);
  if (type.encode == nullptr || !weights)
    fail(ErrorCode::kUnsupported, "type '{}' can be read but not written", type.name);
  return type;
}

std::vector<std::string> recipe_names() {
  std::vector<std::string> names;
  for (const EmbeddedFile& file : embedded_recipes()) {
    if (file.name != kStock) names.emplace_back(file.name);
  }
  return names;
}

Recipe load_recipe(std::string_view name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (name.ends_with(".json")) return parse_recipe(name, json::parse_file(std::string(name), std::uint64_t{1} << 20));
  for (const EmbeddedFile& file : embedded_recipes()) {
    if (file.name == lower && lower != kStock) return parse_recipe(lower, json::parse(file.text));
  }
  if (encoding::find(lower) == nullptr) fail_unknown_type(name);
  Recipe recipe;
  recipe.name = lower;
  recipe.base = &writable_encoding(lower);
  recipe.about = "this type for every linear, the head as in the stock mixes";
  recipe.rules = stock().before;
  return recipe;
}

bool may_quantize(const RecipeTensor& tensor) {
  if (tensor.shape.rank() < 2 || !tensor.name.ends_with("weight")) return false;
  const auto& never = stock().never;
  return std::none_of(never.begin(), never.end(), [&](const std::string& part) { return contains(tensor.name, part); });
}

const encoding::EncodingInfo& fitting_type(const encoding::EncodingInfo& type, const Shape& shape) {
  if (divides(type, shape)) return type;
  for (const auto& [from, to] : stock().fallbacks) {
    if (from == &type && divides(*to, shape)) return *to;
  }
  return *stock().last_fallback;
}

std::vector<Choice> choose_types(const Recipe& recipe, const ModelFacts& facts, std::span<const RecipeTensor> tensors) {
  const std::vector<Place> places = place_tensors(facts, tensors);
  std::vector<Choice> choices(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!may_quantize(tensors[i])) continue;
    const encoding::EncodingInfo* type = recipe.base;
    for (const Rule& rule : recipe.rules) {
      if (applies(rule, recipe, facts, tensors[i], places[i], type)) type = rule.type;
    }
    choices[i] = fitted(*type, tensors[i].shape);
  }
  return choices;
}

std::vector<Choice> choose_pure(const encoding::EncodingInfo& type, std::span<const RecipeTensor> tensors) {
  std::vector<Choice> choices(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (may_quantize(tensors[i])) choices[i] = fitted(type, tensors[i].shape);
  }
  return choices;
}

}  // namespace nibble::pipeline
