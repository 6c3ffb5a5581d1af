// A quantization plan: for every tensor of the output its encoding, its method and its bytes. Printable and diffable;
// what --dry-run shows and what the corridor carries out.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "encoding/repack.h"
#include "method/quantizer.h"
#include "pipeline/recipe.h"

namespace nibble::pipeline {

// A tensor to plan for. Names and shape in the output's dialect.
struct PlanInput {
  RecipeTensor tensor;
  const encoding::EncodingInfo* source = nullptr;   // as it lies in the input
  const encoding::EncodingInfo* kept_as = nullptr;  // what it becomes when it is not quantized
  std::vector<const TensorView*> stored = {};  // the tensors whose rows it can take over; empty: it must be decoded
};

struct TensorPlan {
  RecipeTensor tensor;
  const encoding::EncodingInfo* source = nullptr;
  const encoding::EncodingInfo* target = nullptr;
  const method::Method* method = nullptr;  // null: the numbers are copied, repacked, or cast to a plain type
  std::uint64_t bytes = 0;                 // of the target, without alignment
  encoding::Repacking repacking = encoding::Repacking::kNo;  // of the codes of the input, when they are taken over
  const encoding::ActivationInfo* inputs = nullptr;  // how those of a linear are to be rounded; null: not at all
  bool fallback = false;                             // rows of this length do not exist in the type the recipe wanted
  std::string note;                                  // "q4_k does not fit rows of 288", "override"; usually empty
};

struct QuantPlan {
  std::string recipe;
  std::uint32_t file_type = 0;  // GGUF's general.file_type
  std::vector<TensorPlan> tensors;

  std::uint64_t parameters() const;
  std::uint64_t bytes() const;
  int fallbacks() const;
  double bits_per_weight() const { return 8.0 * static_cast<double>(bytes()) / static_cast<double>(parameters()); }
};

// "REGEX=TYPE": tensors whose GGUF or Hugging Face name the expression is found in get the type, whatever the recipe
// says.
struct Override {
  token::NamePattern pattern;
  const encoding::EncodingInfo* type = nullptr;
};
Override parse_override(std::string_view text);  // throws Error{kInvalidArgument}

// How a tensor gets from its source to its target: the codes as they are where they fit, else by `method`.
void choose_method(const method::Method& method, std::span<const TensorView* const> stored, TensorPlan& plan);

struct PlanOptions {
  const method::Method* method = nullptr;  // null: the default of each type
  std::vector<Override> overrides;         // the first that matches counts
  bool pure = false;                       // the recipe's base everywhere
};

// Throws Error{kInvalidArgument} when an override matches no tensor or the method cannot make a type.
QuantPlan make_plan(const Recipe& recipe, const ModelFacts& facts, std::span<const PlanInput> tensors,
                    const PlanOptions& options);

}  // namespace nibble::pipeline
