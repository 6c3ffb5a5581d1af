// LoRA adapters (arXiv 2106.09685) of a model: from files and to them, as products beside its linears, and merged into
// its weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/model_spec.h"

namespace nibble::model {

class ModelSource;

// What is added to the weight of a role, (out, in): W becomes W + scale * b a. The weight is that of the model's
// description: where a tensor holds q, k and v its role is kAttnQkv.
struct LoraPair {
  Role role{};
  int layer = -1;  // -1: the embedding, the head
  std::int64_t rank = 0;
  double scale = 1;
  std::vector<float> a;  // (rank, in)
  std::vector<float> b;  // (out, rank), rows in canonical order
};

struct LoraAdapter {
  std::string name;
  std::vector<LoraPair> pairs;  // at most one of each weight

  void scale_by(double factor);
};

// Can a weight have one? Matrices of linears and the embedding can; stacks of experts or heads and weights that share a
// tensor in Hugging Face's files cannot.
bool takes_lora(const WeightSlot& slot);

// An adapter of `base` from a folder of PEFT's or a GGUF file, whatever the form of the base. Throws Error naming file
// and tensor: as container::lora::read(), for a weight that the model has not, and for other shapes than its.
LoraAdapter load_lora(const std::filesystem::path& path, const ModelSource& base);
// Writes a GGUF file where `output` ends in .gguf, else a folder of PEFT's; `trained_on` is what that says of the base.
// Throws Error{kInvalidArgument} for pairs that do not fit the base.
void save_lora(const LoraAdapter& adapter, const ModelSource& base, const std::filesystem::path& output,
               const std::string& trained_on = {});

// All that adapters add to some rows of a weight, as one product: out += b^T (a x).
struct LowRank {
  std::int64_t rank = 0;  // the sum of theirs; 0: nothing is added
  std::vector<float> a;   // (rank, in)
  std::vector<float> b;   // (rank, rows), times the scales

  std::int64_t rows() const { return static_cast<std::int64_t>(b.size()) / rank; }
  std::int64_t cols() const { return static_cast<std::int64_t>(a.size()) / rank; }
  // out += the row of b^T a, (cols)
  void add_row(std::int64_t row, float* out) const;
};
LowRank low_rank_of(std::span<const LoraAdapter> adapters, Role role, int layer, std::int64_t row_begin,
                    std::int64_t row_end);

// The same model with the adapters in its weights, made when they are read. An embedding that is the head, too, gets
// a head beside it where only one of both changes. Throws Error{kUnsupported} for a base whose inputs are rotated.
std::shared_ptr<const ModelSource> merge_lora(std::shared_ptr<const ModelSource> base,
                                              std::span<const LoraAdapter> adapters);
// The description with the head that an adapter may have: of a tied model it is one more weight.
ModelSpec lora_spec(const ModelSource& base);

// Throws Error{kUnsupported} where the inputs of linears are in another basis than adapters are trained in.
void refuse_rotated(const ModelSpec& spec);

}  // namespace nibble::model
