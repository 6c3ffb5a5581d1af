// What goes from one checkpoint into another: every tensor of the output, where its rows lie in the input, and the
// metadata.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "container/checkpoint.h"
#include "model/source.h"
#include "pipeline/plan.h"

namespace nibble::pipeline {

// A weight that makes up some of the numbers of a tensor of the output.
struct Share {
  model::StoredRows stored;
  Shape shape;
  model::Strides strides;  // in the output
};

// What a tensor of a folder is to Hugging Face's classes: the weight of a linear of a block, of another one (router,
// head), or of none.
enum class Module : std::uint8_t { kNone, kLinear, kBlockLinear };

// A tensor of the output and where its rows lie in the input.
struct SourceTensor {
  RecipeTensor tensor;       // names and shape as written
  model::StoredRows stored;  // without an entry `values` are the tensor
  std::vector<float> values;
  std::vector<Share> shares;                        // what it is made of; none: of `stored` alone
  const encoding::EncodingInfo* kept_as = nullptr;  // its type when it is not quantized
  static constexpr std::size_t kNoSlot = ~std::size_t{0};
  std::size_t slot = kNoSlot;  // the weight of the model that it holds, or part of which; of several the first
  int part = 0;
  Module module = Module::kNone;  // of folders

  const encoding::EncodingInfo& source_type() const;
  // f32 rows [row_begin, row_end) as written, (row_end - row_begin, cols). A vector is one row.
  void read(std::int64_t row_begin, std::int64_t row_end, float* out) const;
  void read_shares(std::int64_t row_begin, std::int64_t row_end, float* out) const;
  // The tensors whose rows the output takes over where types allow; empty where bytes do not survive.
  std::vector<const TensorView*> stored_views() const;
  // Does the output hold the very bytes of the input when the types are equal? (Whole rows may still move.)
  bool bytes_survive() const {
    const bool moves = stored.row_map.empty() || stored.view.shape.rank() > 1;
    const bool own = stored.entry != nullptr && shares.empty() &&
                     (stored.parts.empty() || (stored.row_map.empty() && stored.view.shape.rank() > 1));
    return own && stored.add == 0 && stored.whole_rows() && moves;
  }
};

struct Conversion {
  std::shared_ptr<const model::ModelSource> model;    // null: a GGUF file of an architecture that is not known
  std::unique_ptr<container::CheckpointReader> file;  // the reader then
  std::vector<SourceTensor> tensors;
  container::Metadata metadata;  // of the output
  ModelFacts facts;
  std::vector<std::string> notes;

  bool to_gguf = true;  // the dialect of the output

  const container::CheckpointReader& reader() const { return model != nullptr ? model->reader() : *file; }
  // Takes the numbers of a tensor from its weight as the model holds it by now (ModelSource::exchange).
  void take_again(SourceTensor& tensor) const;
};

// general.quantization_version: of GGML's block layouts.
inline constexpr std::uint32_t kQuantizationVersion = 2;

// The model in other weights, of the same function.
using Rewrite = std::function<std::shared_ptr<const model::ModelSource>(std::shared_ptr<const model::ModelSource>)>;

// A GGUF file from anything. From a GGUF file: the same tensors in the same order under the same metadata, of any
// architecture. From a Hugging Face folder: GGUF's names, row order and keys, with the tokenizer; vectors and norms in
// f32. `rewrite` is done first, if there is one.
Conversion describe_for_gguf(const std::filesystem::path& input, const Rewrite& rewrite = {});
// The 16-bit type that suits a model: bf16 where its embedding is, else f16.
const encoding::EncodingInfo& sixteen_bits(const model::ModelSource& source);
// A Hugging Face folder from anything of a known architecture: Hugging Face's names and row order, everything as
// `type`; null: in sixteen_bits().
Conversion describe_for_hf(const std::filesystem::path& input, const encoding::EncodingInfo* type,
                           const Rewrite& rewrite = {});

}  // namespace nibble::pipeline
