// How far some of what flows into a linear stands out of the rest: ranges, kurtosis, and the columns that carry it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/exec_context.h"

namespace nibble::eval {

// Count, mean and sums of powers of the distance from it, of numbers that come in runs. In double.
class Moments {
 public:
  Moments() = default;
  explicit Moments(std::span<const float> values);
  void merge(const Moments& other);  // as if all the numbers had been one run

  std::int64_t count() const { return count_; }
  double mean() const { return mean_; }
  double variance() const { return count_ > 0 ? squares_ / static_cast<double>(count_) : 0; }
  double rms() const;
  double kurtosis() const;  // E[(x - mean)^4] / variance^2, 3 of a normal distribution; NaN where all are the same

 private:
  std::int64_t count_ = 0;
  double mean_ = 0, squares_ = 0, cubes_ = 0, fourths_ = 0;  // sums of (x - mean)^2, ^3, ^4
};

struct OutlierFigures {
  std::int64_t tokens = 0, columns = 0;  // of all matrices of a stack together
  double least = 0, largest = 0, mean_abs = 0, rms = 0;
  double max_abs = 0;
  double peak = 0;            // max |x| / RMS, of all inputs
  double token_peak = 0;      // the mean over tokens of the same within a token
  double kurtosis = 0;        // of all inputs
  double channel_peak = 0;    // the largest of the columns' max |x| over their median; columns without a token are none
  std::int64_t features = 0;  // columns with |x| >= threshold in at least 6 % of their tokens
  std::int64_t ever = 0;      // columns with such an x at all
  double affected_tokens = 0;  // the share of tokens with such an x
};

// The inputs of one matrix, or of a stack of equal ones, each with tokens of its own: columns are then counted for each
// matrix. What comes out does not depend on threads, nor on how the tokens are cut into calls.
class InputOutliers {
 public:
  InputOutliers(std::int64_t n_matrices, std::int64_t cols, float threshold);

  // Rows [begins[m], begins[m + 1]) of x, (tokens, cols), are inputs of matrix m.
  void add(ExecContext& context, const float* x, std::span<const std::int64_t> begins);

  std::int64_t n_matrices() const { return static_cast<std::int64_t>(tokens_.size()); }
  std::int64_t cols() const { return cols_; }
  // Throws Error{kFormat} when an input was NaN or infinite.
  OutlierFigures figures() const;
  // The columns that are outlier features, matrix * cols + column, in ascending order.
  std::vector<std::int64_t> features() const;

 private:
  void add_tokens(ExecContext& context, const float* x, std::int64_t n);
  void add_columns(ExecContext& context, const float* x, std::int64_t begin, std::int64_t end, std::int64_t matrix);
  bool is_feature(std::size_t column) const;

  std::int64_t cols_;
  float threshold_;
  std::vector<std::int64_t> tokens_;     // of each matrix
  std::vector<float> column_max_;        // max |x|, (matrices, cols)
  std::vector<std::int64_t> exceeding_;  // tokens with |x| >= threshold, (matrices, cols)
  Moments moments_;
  double sum_abs_ = 0, sum_peaks_ = 0;
  float least_, largest_;
  std::int64_t affected_ = 0, not_finite_ = 0;
};

}  // namespace nibble::eval
