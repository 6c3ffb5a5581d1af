// The rows of a weight where they lie in a checkpoint, read in the decoder's order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "container/checkpoint.h"
#include "model/model_spec.h"
#include "tensor/tensor.h"

namespace nibble::model {

struct StoredRows;

// Numbers of a weight that are made of a checkpoint's when they are read.
class MadeRows {
 public:
  virtual ~MadeRows() = default;
  virtual const StoredRows& origin() const = 0;  // the weight in the checkpoint that they are made of
  // Rows [row_begin, row_end) of the weight in canonical order as f32; a vector is one row. From any thread.
  virtual void read(std::int64_t row_begin, std::int64_t row_end, float* out) const = 0;
  virtual void forget() const {}  // frees what was kept for the next call; nobody may be reading
};

// A tensor read in another order: row r is row row_map[r] of the view (identity when empty; for a vector "row" means
// element), or column r when the view is transposed, or what `strides` say; values are the view's plus `add`.
struct StoredRows {
  const container::TensorEntry* entry = nullptr;  // null: in no file but computed (rope factors)
  TensorView view;                                // of the entry; of made rows without bytes
  Shape shape;                                    // of the weight; rank 0: the view's
  std::vector<std::int32_t> row_map;
  bool transposed = false;
  Strides strides;  // without a shape: none
  float add = 0;
  // Of stacked experts (and the norms of heads) that lie in a tensor each: all of them, the rows (values) of one behind
  // those of the other; `entry` and, of matrices, `view` are the first's.
  std::vector<const container::TensorEntry*> parts;
  const MadeRows* made = nullptr;  // what stands in the place of the view's numbers; null: nothing does

  std::span<const container::TensorEntry* const> entries() const;
  std::uint64_t n_bytes() const;  // of the entries, or of the weight's share of them
  // Do rows lie as they are read, so that their packed form can be taken over, row by row?
  bool whole_rows() const { return !transposed && strides.empty() && made == nullptr; }
  // Rows [row_begin, row_end), all of one part, as rows of that part alone; they begin at `row_begin` then.
  StoredRows part_of(std::int64_t& row_begin, std::int64_t& row_end) const;
  // Rows [row_begin, row_end) as f32; a vector is one row.
  void read(std::int64_t row_begin, std::int64_t row_end, float* out) const;
  std::int64_t cols() const;
  bool has_even_groups() const;     // as the encoding's, of all parts
  bool shares_input_scale() const;  // Is the fixed scale of inputs in `view` that of all parts, not only of the first?

 private:
  void decode(std::int64_t row_begin, std::int64_t row_end, float* out) const;  // rows of the view
  void read_parts(std::int64_t row_begin, std::int64_t row_end, float* out) const;
  void read_transposed(std::int64_t row_begin, std::int64_t row_end, float* out) const;
  void read_strided(std::int64_t row_begin, std::int64_t row_end, float* out) const;
  void read_mapped(std::int64_t row_begin, std::int64_t row_end, float* out) const;
};

}  // namespace nibble::model
