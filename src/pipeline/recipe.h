// Recipes: which tensor gets which encoding, as data. A recipe is a JSON file; all stock mixes are built in.
//
//   { "about": "...", "base": "q4_k", "file_type": 15, "rules": [ {"tensor": "attn_v", "layers": "more_bits", "type":
//   "q6_k"} ] }
//
// A tensor starts at `base`; then every rule is tried in order, and each that applies sets the type (a later rule
// wins). The rules of stock.json stand before and after the recipe's own unless it says "stock": false. A rule has
// "type" and any of:
//   "tensor": one or several groups (group_name());       "layers": "first 4" | "first n/8" | "more_bits"
//   "gqa_min": query heads per key head, at least;        "imatrix": true (only with an importance matrix) | false
//   "experts": exactly so many;                           "arch", "not_arch": GGUF architecture names
//   "model_layers": the model has exactly so many;        "base", "type_is": the base, or the type so far, is one of
//   these "base_fits": the row length is (not) a multiple of the base's block "match": regular expression found in the
//   GGUF or Hugging Face name
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "encoding/encoding.h"
#include "json/json.h"
#include "token/name_pattern.h"

namespace nibble::pipeline {

// Tensors that rules speak of. kAttnV: everything that holds values (attn_v, fused attn_qkv, attn_kv_b). kHead:
// output.weight, or the token embedding where there is none.
enum class TensorGroup : std::uint8_t {
  kOther,
  kTokenEmbedding,
  kHead,
  kAttnQ,
  kAttnK,
  kAttnV,
  kAttnOutput,
  kFfnGate,
  kFfnUp,
  kFfnDown,
};
std::string_view group_name(TensorGroup group);
// By GGUF's name; `tied`: the embedding is the head.
TensorGroup group_of(std::string_view name, bool tied);
// Layer number in "blk.12.attn_v.weight"; -1 when the tensor is in no block.
int layer_of(std::string_view name);

// What rules ask about the model.
struct ModelFacts {
  std::string arch;  // GGUF's general.architecture
  int n_layers = 0;
  int gqa = 1;  // query heads per key head
  int n_experts = 0;
  bool has_imatrix = false;
};

// A tensor as a recipe sees it; names and shape in GGUF's dialect, shape outermost first.
struct RecipeTensor {
  std::string name;
  std::string hf_name;  // may be empty
  Shape shape;
};

struct Rule {
  const encoding::EncodingInfo* type = nullptr;
  std::vector<TensorGroup> groups;  // empty: all
  enum class Layers : std::uint8_t { kAll, kFirst, kFirstShare, kMoreBits } layers = Layers::kAll;
  int layers_argument = 0;  // of kFirst and kFirstShare
  int gqa_min = 0;
  std::optional<bool> imatrix;
  std::optional<int> experts;
  std::optional<int> model_layers;
  std::optional<bool> base_fits;
  std::vector<std::string> arch, not_arch;
  std::vector<const encoding::EncodingInfo*> base, type_is;
  std::optional<token::NamePattern> match;
};

struct Recipe {
  std::string name;
  std::string about;
  const encoding::EncodingInfo* base = nullptr;
  std::optional<std::uint32_t> file_type;  // GGUF's general.file_type; none: that of the most frequent type
  bool needs_imatrix = false;              // made for an importance matrix, refused without
  std::vector<Rule> rules;                 // the stock ones included
};

// The type chosen for a tensor, and why when it is not the recipe's word.
struct Choice {
  const encoding::EncodingInfo* type = nullptr;    // null: the tensor is not for quantizing and keeps its numbers
  const encoding::EncodingInfo* wanted = nullptr;  // what the recipe asked for, when rows of that length do not fit it
};

// Names of the built-in recipes, sorted.
std::vector<std::string> recipe_names();
// `name`: a built-in recipe, the name of an encoding (all linears get it; the head as in the stock mixes), or the path
// of a recipe file (it ends in .json). Throws Error{kInvalidArgument} listing near names.
Recipe load_recipe(std::string_view name);
Recipe parse_recipe(std::string_view name, const json::Value& value);

// One choice for each tensor. Rules count layers by the running number of a tensor in its group, in the order of
// layers.
std::vector<Choice> choose_types(const Recipe& recipe, const ModelFacts& facts, std::span<const RecipeTensor> tensors);
// `type` everywhere it may go, the head included, without rules.
std::vector<Choice> choose_pure(const encoding::EncodingInfo& type, std::span<const RecipeTensor> tensors);

// Is the tensor one that may be quantized at all: a matrix of weights that is not on stock.json's list?
bool may_quantize(const RecipeTensor& tensor);
// `type`, or what stock.json puts in its place when rows of this length do not exist in it.
const encoding::EncodingInfo& fitting_type(const encoding::EncodingInfo& type, const Shape& shape);

}  // namespace nibble::pipeline
