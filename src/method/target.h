// What a layer should hold once the layers before it are quantized: its inputs x̂ are no longer the x of the unquantized
// model, and ‖Ŵ x̂ - W x‖² is least not for Ŵ = W but for
//   W* = W + W (C - Ĥ)(Ĥ + λ)⁻¹,  Ĥ the mean of x̂ x̂ᵀ, C that of x x̂ᵀ
// (the square completed; GPTAQ, arXiv 2504.02692, and Qronos, 2505.11695, come to it column by column). λ holds W* to W
// in directions that calibration has hardly seen.
#pragma once

#include <cstdint>
#include <vector>

#include "method/quantizer.h"

namespace nibble::method {

class Target {
 public:
  // Nothing is corrected without job.statistics.cross. With held_out and held_out_cross the share of the way to W* is
  // the one of 0, 1/4, 1/2 and job.options.correction that serves them best. Throws Error{kInvalidArgument} for
  // statistics of another size or that are not finite, Error{kFormat} where Ĥ is not positive definite.
  void prepare(ExecContext& context, const Job& job, const RowSource& weights);

  double share() const { return share_; }
  // weights: rows from `row_begin` on, (n_rows, cols), replaced.
  void correct(float* weights, std::int64_t row_begin, std::int64_t n_rows) const;

 private:
  double best_share(ExecContext& context, const Job& job, const RowSource& weights) const;
  // W* - W of those rows.
  std::vector<float> change_of(const float* weights, std::int64_t row_begin, std::int64_t n_rows) const;

  std::int64_t cols_ = 0;
  double share_ = 0;
  // The smaller of W* - W, (rows, cols), and (C - Ĥ)(Ĥ + λ)⁻¹, (cols, cols); empty: nothing to correct.
  std::vector<float> step_;
  bool by_row_ = false;  // the first of them
};

}  // namespace nibble::method
