// A model on disk, described: the opened checkpoint, its ModelSpec, and its weights under canonical names and row
// order.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "container/checkpoint.h"
#include "encoding/activation.h"
#include "model/model_spec.h"
#include "model/stored_rows.h"
#include "tensor/tensor.h"
#include "token/tokenizer.h"

namespace nibble::model {

class ModelSource {
 public:
  // Opens anything container::open_model() does and finds the architecture by config.json or general.architecture.
  // Checks that every required weight is there with the shape the spec asks for; errors name file and tensor. The
  // weights of spec() are exactly those that exist: absent optional ones are gone, and with them `tied` and the bias
  // flags of the blocks are settled.
  static std::shared_ptr<const ModelSource> open(const std::filesystem::path& path);
  // The same of a checkpoint that is already open, for one that lies partly in memory.
  static std::shared_ptr<const ModelSource> from_reader(std::unique_ptr<container::CheckpointReader> reader);

  // The same model, whose weights can be exchanged one by one; the opened files are shared with this one.
  std::shared_ptr<ModelSource> exchangeable() const;
  // The same model in other weights: those of `spec`, this one's or with_head(), which for each slot are `made` or,
  // where that is null, the slot's in this one.
  std::shared_ptr<const ModelSource> rewritten(ModelSpec spec, std::vector<std::shared_ptr<const MadeRows>> made) const;
  // The description of a model whose head is the embedding, with a head of its own as the last weight.
  ModelSpec with_head() const;
  // From now on the slot's numbers are those of `tensor`: of the slot's shape, rows in canonical order, of any
  // encoding. Not while another thread reads them. Throws Error{kInternal} for another shape.
  void exchange(std::size_t slot, Tensor tensor);
  // The numbers of the file again; frees what exchange() was given.
  void restore(std::size_t slot);

  // The block's cache is to have these scales, of numbers that are rounded so: a static type.
  void give_cache_scales(int layer, const encoding::ActivationInfo& rounding, float k_scale, float v_scale);

  const container::CheckpointReader& reader() const { return *reader_; }
  const ModelSpec& spec() const { return spec_; }
  const StoredRows& weight(std::size_t slot) const { return weights_[slot]; }  // slot: index into spec().weights
  // Canonical f32 rows (row_end - row_begin, cols) of a slot; a vector is one row.
  void read_rows(std::size_t slot, std::int64_t row_begin, std::int64_t row_end, float* out) const;
  // The tokenizer's data, from the folder or the GGUF header. Throws Error{kNotFound} when the model has none.
  token::Vocabulary vocabulary() const;

 private:
  struct Exchanged {
    container::TensorEntry entry;
    Tensor tensor;
    StoredRows original;
  };
  ModelSource() = default;
  void bind_weights();
  void take_rope_factors();
  void take_cache_scales();
  std::shared_ptr<const container::CheckpointReader> reader_;
  ModelSpec spec_;
  std::vector<StoredRows> weights_;
  std::vector<std::shared_ptr<const MadeRows>> made_;  // by slot; empty: none
  std::map<std::size_t, Exchanged> exchanged_;         // by slot
};

}  // namespace nibble::model
