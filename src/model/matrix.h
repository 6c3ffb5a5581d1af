// One weight matrix as the decoder multiplies by it: packed for a kernel (fast path) or left as the file has it (exact
// path).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/cpu.h"
#include "base/exec_context.h"
#include "kernel/linear.h"
#include "model/source.h"

namespace nibble::model {

class Matrix {
 public:
  Matrix(std::int64_t rows, std::int64_t cols, const InputRounding& inputs)
      : rows_(rows), cols_(cols), inputs_(inputs), kept_(inputs.kept.bytes.begin(), inputs.kept.bytes.end()) {
    inputs_.kept = {kept_};
  }
  virtual ~Matrix() = default;
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  const InputRounding& inputs() const { return inputs_; }  // how they are to be rounded
  // How activations are handed to compute(); null: f32 rows, contiguous. `batch`: tokens that come in a call, about;
  // the format and the roundings of the products depend on it, n does not change them.
  virtual const kernel::ActivationFormat* activation(std::int64_t batch) const = 0;
  // The order that columns of those have, (cols); null: as they come.
  virtual const std::int32_t* column_order() const = 0;
  // Row ranges given to compute() begin at multiples of this.
  virtual std::int64_t grain() const = 0;
  virtual std::int64_t scratch_floats() const = 0;  // work memory of one compute() call
  // out[t * ldo + r] = sum_c w[r][c] * x[t][c] for r in [row_begin, row_end), t in [0, n).
  virtual void compute(const std::byte* activations, std::int64_t batch, std::int64_t n, std::int64_t row_begin,
                       std::int64_t row_end, float* out, std::int64_t ldo, float* scratch) const = 0;
  virtual void row(std::int64_t row, float* out) const = 0;  // (cols)

 private:
  std::int64_t rows_, cols_;
  InputRounding inputs_;
  std::vector<std::byte> kept_;  // the file's may go
};

// Rows [begin, end) of a slot: the part of a fused weight that one linear multiplies by.
struct SlotRows {
  std::size_t slot = 0;
  std::int64_t begin = 0, end = 0;
};

// Copies the weights into the layout of the best kernel, with all threads: `count` matrices of equally many rows, one
// after the other in memory. `packed_bytes` tells the memory taken. Both throw Error{kFormat} naming tensor and row of
// a weight that is NaN or infinite.
std::vector<std::shared_ptr<const Matrix>> make_packed_matrices(ExecContext& context, const ModelSource& source,
                                                                const SlotRows& rows, int count, Isa isa,
                                                                std::uint64_t& packed_bytes);
// Reads the file whenever it is asked; `source` must outlive it. Products are f32, a panel of rows at a time.
std::unique_ptr<const Matrix> make_decoded_matrix(ExecContext& context, const ModelSource& source,
                                                  const SlotRows& rows);

}  // namespace nibble::model
