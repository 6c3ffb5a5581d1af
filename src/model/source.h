// A model on disk, described: the opened checkpoint, its ModelSpec, and its weights under canonical names and row
// order.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "container/checkpoint.h"
#include "model/model_spec.h"
#include "tensor/tensor.h"
#include "token/tokenizer.h"

namespace nibble::model {

// A tensor where it lies, read in another order: row r is row row_map[r] of the view (identity when empty; for a vector
// "row" means element), or column r when the view is transposed; values are the view's plus `add`.
struct StoredRows {
  const container::TensorEntry* entry = nullptr;  // null: in no file but computed (rope factors)
  TensorView view;                                // of the entry
  std::vector<std::int32_t> row_map;
  bool transposed = false;
  float add = 0;
  // Of stacked experts that lie in a tensor each: all of them, the rows of one below those of the other; `entry` and
  // `view` are the first's.
  std::vector<const container::TensorEntry*> parts;

  std::span<const container::TensorEntry* const> entries() const;
  std::uint64_t n_bytes() const;
  // Rows [row_begin, row_end), all of one part, as rows of that part alone; they begin at `row_begin` then.
  StoredRows part_of(std::int64_t& row_begin, std::int64_t& row_end) const;
  // Rows [row_begin, row_end) as f32; a vector is one row.
  void read(std::int64_t row_begin, std::int64_t row_end, float* out) const;
  std::int64_t cols() const { return transposed ? view.rows() : view.cols(); }
};

class ModelSource {
 public:
  // Opens anything container::open_model() does and finds the architecture by config.json or general.architecture.
  // Checks that every required weight is there with the shape the spec asks for; errors name file and tensor. The
  // weights of spec() are exactly those that exist: absent optional ones are gone, and with them `tied` and the bias
  // flags of the blocks are settled.
  static std::shared_ptr<const ModelSource> open(const std::filesystem::path& path);
  // The same of a checkpoint that is already open, for one that lies partly in memory.
  static std::shared_ptr<const ModelSource> from_reader(std::unique_ptr<container::CheckpointReader> reader);

  const container::CheckpointReader& reader() const { return *reader_; }
  const ModelSpec& spec() const { return spec_; }
  const StoredRows& weight(std::size_t slot) const { return weights_[slot]; }  // slot: index into spec().weights
  // Canonical f32 rows (row_end - row_begin, cols) of a slot; a vector is one row.
  void read_rows(std::size_t slot, std::int64_t row_begin, std::int64_t row_end, float* out) const;
  // The tokenizer's data, from the folder or the GGUF header. Throws Error{kNotFound} when the model has none.
  token::Vocabulary vocabulary() const;

 private:
  ModelSource() = default;
  void bind_weights();
  void take_rope_factors();
  std::unique_ptr<container::CheckpointReader> reader_;
  ModelSpec spec_;
  std::vector<StoredRows> weights_;
};

}  // namespace nibble::model
