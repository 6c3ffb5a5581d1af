#include "pipeline/plan.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "pipeline/embedded.h"
#include "pipeline/stock.h"

namespace nibble::pipeline {

namespace {

// The file type of the recipe whose base is the type that holds most weights.
std::uint32_t file_type_of(const Recipe& recipe, const std::vector<TensorPlan>& tensors) {
  if (recipe.file_type) return *recipe.file_type;
  std::map<std::string_view, std::int64_t> elements;
  for (const TensorPlan& plan : tensors) elements[plan.target->name] += plan.tensor.shape.elements();
  const auto most = std::max_element(elements.begin(), elements.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most == elements.end()) return 0;
  std::uint32_t file_type = 0;
  for (const std::string& name : recipe_names()) {
    const Recipe known = load_recipe(name);
    if (known.base->name == most->first && known.file_type) file_type = std::max(file_type, *known.file_type);
  }
  return file_type;
}

std::string misfit(const encoding::EncodingInfo& type, const Shape& shape) {
  return format_text("{} does not fit rows of {}", type.name, shape.cols());
}

const Override* find_override(const std::vector<Override>& overrides, const RecipeTensor& tensor) {
  const auto found = std::find_if(overrides.begin(), overrides.end(), [&](const Override& o) {
    return o.pattern.found_in(tensor.name) || (!tensor.hf_name.empty() && o.pattern.found_in(tensor.hf_name));
  });
  return found != overrides.end() ? &*found : nullptr;
}

void apply_override(const Override& override, TensorPlan& plan) {
  plan.target = &fitting_type(*override.type, plan.tensor.shape);
  plan.fallback = plan.target != override.type;
  plan.note = format_text("override '{}'", override.pattern.text());
  if (plan.fallback) plan.note += ", " + misfit(*override.type, plan.tensor.shape);
}

encoding::Repacking repacking_of(std::span<const TensorView* const> stored, const encoding::EncodingInfo& target) {
  encoding::Repacking all = stored.empty() ? encoding::Repacking::kNo : encoding::Repacking::kExact;
  for (const TensorView* view : stored) all = std::min(all, encoding::repacking(*view, target));
  return all;
}

}  // namespace

void choose_method(const method::Method& method, std::span<const TensorView* const> stored, TensorPlan& plan) {
  const bool same = plan.target == plan.source && !stored.empty();
  if (same || plan.target->family == encoding::Family::kPlain) return;
  plan.repacking = repacking_of(stored, *plan.target);
  if (plan.repacking == encoding::Repacking::kRounded) {
    plan.note += plan.note.empty() ? "" : ", ";
    plan.note += plan.source->affine.symmetric ? "codes as they are, scales rounded to f16"
                                               : "codes as they are, minima rounded to f16";
  }
  if (plan.repacking != encoding::Repacking::kNo) return;
  plan.method = &method;
  if (!method.supports(*plan.target)) {
    fail(ErrorCode::kInvalidArgument, "method '{}' cannot make type '{}' (tensor '{}')", method.name, plan.target->name,
         plan.tensor.name);
  }
}

std::uint64_t QuantPlan::parameters() const {
  std::uint64_t sum = 0;
  for (const TensorPlan& plan : tensors) sum += static_cast<std::uint64_t>(plan.tensor.shape.elements());
  return sum;
}

std::uint64_t QuantPlan::bytes() const {
  std::uint64_t sum = 0;
  for (const TensorPlan& plan : tensors) sum += plan.bytes;
  return sum;
}

int QuantPlan::fallbacks() const {
  return static_cast<int>(
      std::count_if(tensors.begin(), tensors.end(), [](const TensorPlan& plan) { return plan.fallback; }));
}

Override parse_override(std::string_view text) {
  const auto at = text.rfind('=');
  if (at == std::string_view::npos || at == 0 || at + 1 == text.size()) {
    fail(ErrorCode::kInvalidArgument, "override '{}' is not of the form REGEX=TYPE", text);
  }
  return with_context(format_text("override '{}'", text), [&] {
    return Override{token::NamePattern(text.substr(0, at)), &writable_encoding(text.substr(at + 1))};
  });
}

QuantPlan make_plan(const Recipe& recipe, const ModelFacts& facts, std::span<const PlanInput> inputs,
                    const PlanOptions& options) {
  std::vector<RecipeTensor> tensors;
  for (const PlanInput& input : inputs) tensors.push_back(input.tensor);
  const std::vector<Choice> choices =
      options.pure ? choose_pure(*recipe.base, tensors) : choose_types(recipe, facts, tensors);

  QuantPlan result;
  result.recipe = recipe.name;
  std::vector<bool> used(options.overrides.size(), false);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    TensorPlan plan;
    plan.tensor = tensors[i];
    plan.source = inputs[i].source;
    plan.target = choices[i].type != nullptr ? choices[i].type : inputs[i].kept_as;
    plan.fallback = choices[i].wanted != nullptr;
    if (plan.fallback) plan.note = misfit(*choices[i].wanted, plan.tensor.shape);
    if (choices[i].type != nullptr) {
      if (const Override* override = find_override(options.overrides, plan.tensor)) {
        apply_override(*override, plan);
        used[static_cast<std::size_t>(override - options.overrides.data())] = true;
      }
    }
    choose_method(options.method != nullptr ? *options.method : method::default_for(*plan.target), inputs[i].stored,
                  plan);
    plan.bytes = encoding::tensor_bytes(*plan.target, plan.tensor.shape);
    result.tensors.push_back(std::move(plan));
  }
  for (std::size_t i = 0; i < used.size(); ++i) {
    if (!used[i])
      fail(ErrorCode::kInvalidArgument, "override '{}' matches no tensor that can be quantized",
           options.overrides[i].pattern.text());
  }
  result.file_type = file_type_of(recipe, result.tensors);
  return result;
}

}  // namespace nibble::pipeline
