// Data files built into the program.
#pragma once

#include <span>
#include <string_view>

namespace nibble::pipeline {

struct EmbeddedFile {
  std::string_view name;  // file name without ".json"
  std::string_view text;
};

std::span<const EmbeddedFile> embedded_recipes();  // src/pipeline/recipes/*.json, by name
std::span<const EmbeddedFile> embedded_shapes();   // src/pipeline/shapes/*.json, by name

}  // namespace nibble::pipeline
