// What can be asked for: recipes, formats and methods with what there is to know of them.
#include <algorithm>

#include "container/hf/format.h"
#include "encoding/encoding.h"
#include "method/quantizer.h"
#include "nibble/quantize.h"
#include "pipeline/recipe.h"
#include "tune/tuning_method.h"

namespace nibble {

using pipeline::load_recipe;
using pipeline::recipe_names;

std::vector<NamedText> list_recipes() {
  std::vector<NamedText> list;
  for (const std::string& name : recipe_names()) list.push_back({name, load_recipe(name).about});
  return list;
}

std::vector<NamedText> list_formats() {
  std::vector<NamedText> list = {{"gguf", "a file of recipes and block types"}};
  for (const container::hf::Format* format : container::hf::all_formats())
    list.push_back({std::string(format->name), "a folder of " + container::hf::types_text(*format)});
  return list;
}

std::vector<MethodText> describe_methods() {
  // One type of each kind tells what a method's results go into.
  static constexpr std::string_view kProbes[] = {"int4-tensor",      "int4-g128-f16", "int4-g128-asym-f16",
                                                 "int8-channel-f16", "nf4",           "kmeans4-channel",
                                                 "fp8-block128x128"};
  std::vector<MethodText> list;
  for (const method::Method* method : method::all_entries()) {
    MethodText& text = list.emplace_back();
    text.name = method->name;
    text.summary = method->summary;
    text.source = method->source;
    text.statistics = method->statistics;
    text.cost = method->cost;
    if (method->supports(encoding::get("q4_k"))) text.formats.emplace_back("gguf");
    for (const container::hf::Format* format : container::hf::all_formats()) {
      const bool some = std::ranges::any_of(kProbes, [&](std::string_view name) {
        const encoding::EncodingInfo& type = encoding::get(name);
        return method->supports(type) && container::hf::holds(*format, type);
      });
      if (some) text.formats.emplace_back(format->name);
    }
  }
  for (const tune::TuningMethod& method : tune::tuning_methods()) {
    MethodText& text = list.emplace_back();
    text.name = method.name;
    text.summary = method.summary;
    text.source = method.source;
    text.statistics = "inputs and outputs of the block";
    text.cost = method.cost;
    text.formats = std::ranges::find(list, method.start, &MethodText::name)->formats;
  }
  return list;
}

std::vector<NamedText> list_methods() {
  std::vector<NamedText> list;
  for (const method::Method* method : method::all_entries())
    list.push_back({std::string(method->name), std::string(method->summary)});
  for (const tune::TuningMethod& method : tune::tuning_methods())
    list.push_back({std::string(method.name), std::string(method.summary)});
  return list;
}

}  // namespace nibble
