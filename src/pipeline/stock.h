// What all stock mixes share (recipes/stock.json), parsed once.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipeline/recipe.h"

namespace nibble::pipeline {

struct Stock {
  std::vector<Rule> before, after;
  std::vector<std::pair<const encoding::EncodingInfo*, const encoding::EncodingInfo*>>
      fallbacks;  // type -> type of smaller block
  const encoding::EncodingInfo* last_fallback = nullptr;
  std::vector<std::string> never;  // parts of names that are not quantized
};
const Stock& stock();

std::vector<Rule> parse_rules(const json::Value& value);
// The encoding of that name, if Nibble can write it into a GGUF file. Throws Error{kInvalidArgument} otherwise.
const encoding::EncodingInfo& writable_encoding(std::string_view name);

}  // namespace nibble::pipeline
