// What flows into the linears that share an input, summed over tokens: the statistics that methods ask for.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/exec_context.h"

namespace nibble::calib {

struct Wanted {
  bool gram = false;    // x xᵀ
  bool cross = false;   // x₀ xᵀ with x₀ what flows there in the unquantized model
  bool ranges = false;  // mean |x|, mean x², max |x|

  Wanted operator|(const Wanted& other) const {
    return {gram || other.gram, cross || other.cross, ranges || other.ranges};
  }
};

// Of one matrix or of a stack of equal ones, each with inputs of its own.
class InputMoments {
 public:
  InputMoments() = default;
  InputMoments(std::int64_t n_matrices, std::int64_t cols, const Wanted& wanted);

  // Rows [begins[m], begins[m + 1]) of x are inputs of matrix m; original: the same tokens in the unquantized model,
  // null unless `cross` is wanted.
  void add(ExecContext& context, const float* x, std::span<const std::int64_t> begins, const float* original);
  // Sums become means. Throws Error{kFormat} when one is NaN or infinite.
  void finish(ExecContext& context);

  // Means that were kept elsewhere; what is empty was not wanted.
  struct Means {
    AlignedBuffer gram;  // (matrices, cols, cols)
    std::vector<float> mean_square, mean_abs, max_abs;
  };
  static InputMoments of_means(std::int64_t cols, std::vector<std::int64_t> counts, Means means);
  // Means over the tokens of both; `other` is of as many matrices and columns and holds the same statistics, no cross.
  void merge(ExecContext& context, const InputMoments& other);

  std::int64_t cols() const { return cols_; }
  std::int64_t n_matrices() const { return static_cast<std::int64_t>(counts_.size()); }
  std::int64_t count(std::int64_t matrix) const { return counts_[static_cast<std::size_t>(matrix)]; }
  // Empty when not wanted: (cols, cols), (cols).
  std::span<const float> gram(std::int64_t matrix) const { return square(gram_, matrix); }
  std::span<const float> cross(std::int64_t matrix) const { return square(cross_, matrix); }
  std::span<const float> mean_square(std::int64_t matrix) const { return line(mean_square_, matrix); }
  std::span<const float> mean_abs(std::int64_t matrix) const { return line(mean_abs_, matrix); }
  std::span<const float> max_abs(std::int64_t matrix) const { return line(max_abs_, matrix); }

 private:
  void add_ranges(ExecContext& context, const float* x, std::int64_t begin, std::int64_t end, std::int64_t matrix);
  std::span<const float> square(const AlignedBuffer& all, std::int64_t matrix) const;
  std::span<const float> line(const std::vector<float>& all, std::int64_t matrix) const;

  std::int64_t cols_ = 0;
  Wanted wanted_;
  std::vector<std::int64_t> counts_;  // tokens of each matrix
  AlignedBuffer gram_, cross_;        // (matrices, cols, cols)
  std::vector<double> sum_square_, sum_abs_;
  std::vector<float> mean_square_, mean_abs_, max_abs_;  // (matrices, cols)
};

}  // namespace nibble::calib
